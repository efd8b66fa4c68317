/* Preloaded before the null GPU: an old driver (NULLGPU_DRIVER=old) or an old card (NULLGPU_CARD=old). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <cuda_runtime_api.h>

static int set(const char *name) { const char *value = getenv(name); return value && !strcmp(value, "old"); }

cudaError_t cudaGetDeviceCount(int *count) {
    if (set("NULLGPU_DRIVER")) { *count = 0; return cudaErrorInsufficientDriver; }
    return ((cudaError_t (*)(int *))dlsym(RTLD_NEXT, "cudaGetDeviceCount"))(count);
}

cudaError_t cudaDriverGetVersion(int *version) { *version = set("NULLGPU_DRIVER") ? 11040 : 13000; return cudaSuccess; }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device) {
    cudaError_t code = ((cudaError_t (*)(struct cudaDeviceProp *, int))dlsym(RTLD_NEXT, "cudaGetDeviceProperties"))(properties, device);
    if (set("NULLGPU_CARD")) { properties->major = 6; properties->minor = 1; strcpy(properties->name, "an old card"); }
    return code;
}
