// A CUDA device that is only a description: for a compiler that decides by the device what to compile, where there is none.
//
// Loaded before everything else into a process of its own, it answers for the CUDA runtime, the driver, and what of torch says
// where a tensor lies. Memory is never touched and a launch does nothing but note which kernel it was. Compiled for each process
// that needs it, with the headers of the same toolkit as the compiler. None of this is ever loaded into a server.
//
// DESCRIBED_MAJOR, DESCRIBED_MINOR and DESCRIBED_MULTIPROCESSORS describe the device.

#include <cuda.h>
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST_LAUNCHES 64

static const char *launched[MOST_LAUNCHES];
static unsigned n_launched;

// Files of the kernels that were launched since this was last asked. Returns how many; no more than `capacity` are given.
unsigned described_launches(const char **files, unsigned capacity) {
    unsigned n = n_launched < capacity ? n_launched : capacity;
    memcpy(files, launched, n * sizeof *files);
    n_launched = 0;
    return n;
}

static int described(const char *name) {
    const char *value = getenv(name);
    return value ? atoi(value) : 0;
}

// --- the runtime ---------------------------------------------------------------------------------------------------------

cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    (void)device;
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "described");
    properties->major = described("DESCRIBED_MAJOR");
    properties->minor = described("DESCRIBED_MINOR");
    properties->multiProcessorCount = described("DESCRIBED_MULTIPROCESSORS");
    properties->sharedMemPerBlockOptin = 227 * 1024;  // of every architecture from 9.0 to 10.3
    properties->l2CacheSize = 50 << 20;
    properties->warpSize = 32;
    return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize(void) { return cudaSuccess; }
cudaError_t cudaFree(void *memory) { (void)memory; return cudaSuccess; }
const char *cudaGetErrorName(cudaError_t error) { (void)error; return "an error of a described device"; }
const char *cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

cudaError_t cudaMemsetAsync(void *memory, int value, size_t n_bytes, cudaStream_t stream) {
    (void)memory, (void)value, (void)n_bytes, (void)stream;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    (void)stream;
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

// --- the driver: a library, its only kernel and its function are all the name of the library's file ------------------------

CUresult cuLibraryLoadFromFile(CUlibrary *library, const char *file, CUjit_option *options, void **values, unsigned n_options,
                               CUlibraryOption *library_options, void **library_values, unsigned n_library_options) {
    (void)options, (void)values, (void)n_options, (void)library_options, (void)library_values, (void)n_library_options;
    *library = (CUlibrary)strdup(file);
    return *library ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult cuLibraryGetKernelCount(unsigned *n, CUlibrary library) {
    (void)library;
    *n = 1;
    return CUDA_SUCCESS;
}

CUresult cuLibraryEnumerateKernels(CUkernel *kernels, unsigned n, CUlibrary library) {
    for (unsigned i = 0; i < n; i++) kernels[i] = (CUkernel)library;
    return CUDA_SUCCESS;
}

CUresult cuKernelGetFunction(CUfunction *function, CUkernel kernel) {
    *function = (CUfunction)kernel;
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **arguments, void **extra) {
    (void)config, (void)arguments, (void)extra;
    if (n_launched < MOST_LAUNCHES) launched[n_launched++] = (const char *)function;
    return CUDA_SUCCESS;
}

CUresult cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value) {
    (void)function, (void)attribute, (void)value;
    return CUDA_SUCCESS;
}

CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                                const cuuint32_t *element_strides, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill) {
    (void)type, (void)rank, (void)address, (void)sizes, (void)strides, (void)box, (void)element_strides, (void)interleave;
    (void)swizzle, (void)promotion, (void)fill;
    memset(map, 0, sizeof *map);
    return CUDA_SUCCESS;
}

CUresult cuLibraryUnload(CUlibrary library) { (void)library; return CUDA_SUCCESS; }

CUresult cuGetErrorName(CUresult error, const char **text) {
    (void)error;
    *text = "an error of a described device";
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char **text) { return cuGetErrorName(error, text); }

// --- cuBLASLt: there is none, and nothing that is asked here needs it ------------------------------------------------------

#define ABSENT(name) int name(void) { return 1; }  // CUBLAS_STATUS_NOT_INITIALIZED
int cublasLtCreate(void **handle) { *handle = (void *)1; return 0; }
int cublasLtDestroy(void *handle) { (void)handle; return 0; }
const char *cublasGetStatusString(int status) { (void)status; return "an error of a described device"; }
ABSENT(cublasLtMatmul)
ABSENT(cublasLtMatmulAlgoGetHeuristic)
ABSENT(cublasLtMatmulDescCreate)
ABSENT(cublasLtMatmulDescDestroy)
ABSENT(cublasLtMatmulDescSetAttribute)
ABSENT(cublasLtMatmulPreferenceCreate)
ABSENT(cublasLtMatmulPreferenceDestroy)
ABSENT(cublasLtMatmulPreferenceSetAttribute)
ABSENT(cublasLtMatrixLayoutCreate)
ABSENT(cublasLtMatrixLayoutDestroy)
ABSENT(cublasLtMatrixLayoutSetAttribute)
ABSENT(torch_get_current_cuda_blas_handle)

// --- torch: every tensor is on the described device, and operations for CUDA take it ---------------------------------------

#define ON_CUDA 1

int32_t aoti_torch_get_current_cuda_stream(int32_t device, void **stream) { (void)device; *stream = NULL; return 0; }
int32_t aoti_torch_get_current_device_index(int32_t *device) { *device = 0; return 0; }
int32_t aoti_torch_get_device_index(void *tensor, int32_t *device) { (void)tensor; *device = 0; return 0; }
int32_t aoti_torch_get_device_type(void *tensor, int32_t *type) { (void)tensor; *type = ON_CUDA; return 0; }

static void *real(const char *name) {
    void *torch = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
    return torch ? dlsym(torch, name) : NULL;
}

int32_t aoti_torch_library_init_impl(const char *space, const char *key, const char *file, uint32_t line, void **library) {
    int32_t (*make)(const char *, const char *, const char *, uint32_t, void **);
    *(void **)&make = real("aoti_torch_library_init_impl");
    return make ? make(space, strcmp(key, "CUDA") ? key : "CPU", file, line, library) : 1;
}

// Tensors that are made on the device are made on the host.
int32_t aoti_torch_aten_full(const int64_t *sizes, int64_t n_sizes, double value, int32_t *dtype, int32_t *layout,
                             int32_t *device, int32_t index, int32_t *pinned, void **tensor) {
    int32_t (*make)(const int64_t *, int64_t, double, int32_t *, int32_t *, int32_t *, int32_t, int32_t *, void **);
    int32_t host = 0;
    (void)device;
    *(void **)&make = real("aoti_torch_aten_full");
    return make ? make(sizes, n_sizes, value, dtype, layout, &host, index, pinned, tensor) : 1;
}

// What a kernel would fill is zero instead: it may be used as an index.
static void clear(void *tensor) {
    int32_t (*place)(void *, void **), (*size)(void *, int64_t *);
    void *data = NULL;
    int64_t n_bytes = 0;
    *(void **)&place = real("aoti_torch_get_data_ptr");
    *(void **)&size = real("aoti_torch_get_storage_size");
    if (place && size && !place(tensor, &data) && !size(tensor, &n_bytes) && data) memset(data, 0, (size_t)n_bytes);
}

int32_t torch_call_dispatcher(const char *operation, const char *overload, uint64_t *arguments, uint64_t version) {
    // Which argument says where; it is optional, and where it is given a pointer to a device's type and index.
    int device = !strcmp(operation, "aten::empty_strided") ? 4 : !strcmp(operation, "aten::empty") ? 3 : -1;
    int32_t (*call)(const char *, const char *, uint64_t *, uint64_t);
    *(void **)&call = real("torch_call_dispatcher");
    if (!call) return 1;
    if (device >= 0 && arguments[device]) *(uint64_t *)arguments[device] = 0;
    int32_t failed = call(operation, overload, arguments, version);
    if (device == 3 && !failed) clear((void *)arguments[0]);
    return failed;
}
