/* Preloaded before the null GPU: streams that can be captured as graphs.

A captured kernel is counted, and so is each of its replays (capturing_gpu_replayed). Copies and fills within a graph do
nothing while it is captured and their work at each replay. What CUDA refuses while a stream is captured is refused here
too: a wait of the host, a question to an event or a stream, a copy that waits, an allocation in a thread that has not
allowed it, and a copy from memory that is not pinned. The capture then fails. */
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <atomic>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <vector>

struct Graph { std::vector<std::function<void()>> nodes; long kernels = 0; };

static std::recursive_mutex lock;
static Graph *current = nullptr;
static std::set<cudaStream_t> captured;
static std::set<cudaEvent_t> events;
static unsigned long long number = 0;
static std::atomic<long> replayed{0}, kernels{0};
static thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;
static thread_local bool begun_here = false;
static cudaStreamCaptureMode mode;
static std::atomic<bool> broken{false};

template <typename F> static F *next(F *, const char *name) { return (F *)dlsym(RTLD_NEXT, name); }
#define NEXT(name) next((decltype(name) *)0, #name)

static bool capturing(cudaStream_t stream) {
    std::lock_guard<std::recursive_mutex> held(lock);
    return current && captured.count(stream);
}

/* Whether this thread may not make a call now that a capture could not contain. */
static bool unsafe() {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (!current || thread_mode == cudaStreamCaptureModeRelaxed || mode == cudaStreamCaptureModeRelaxed) return false;
    return mode == cudaStreamCaptureModeGlobal || begun_here;
}

static bool add(cudaStream_t stream, std::function<void()> work, bool kernel = false) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (!capturing(stream)) return false;
    if (kernel) { current->kernels++; kernels++; } else current->nodes.push_back(work);
    return true;
}

extern "C" {
long capturing_gpu_replayed() { return replayed; }
long capturing_gpu_kernels() { return kernels; }

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode wanted) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (current) return cudaErrorIllegalState;
    current = new Graph; captured = {stream}; events.clear(); mode = wanted; begun_here = true; broken = false; number++;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (!capturing(stream)) return cudaErrorIllegalState;
    *graph = broken ? nullptr : (cudaGraph_t)current; current = nullptr; begun_here = false;
    return broken ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    *status = capturing(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream, cudaStreamCaptureStatus *status, unsigned long long *id, cudaGraph_t *graph,
                                     const cudaGraphNode_t **nodes, const cudaGraphEdgeData **edges, size_t *count) {
    cudaStreamIsCapturing(stream, status);
    if (id) *id = number;
    if (graph) *graph = (cudaGraph_t)current;
    if (nodes) *nodes = nullptr;
    if (edges) *edges = nullptr;
    if (count) *count = 0;
    return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode *wanted) { std::swap(thread_mode, *wanted); return cudaSuccess; }
cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long) {
    *exec = (cudaGraphExec_t) new Graph(*(Graph *)graph);
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
    return cudaGraphInstantiateWithFlags(exec, graph, flags);
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    if (capturing(stream)) return cudaErrorStreamCaptureUnsupported;
    replayed += ((Graph *)exec)->kernels;
    for (auto &node : ((Graph *)exec)->nodes) node();
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *, size_t *count) {
    *count = ((Graph *)graph)->nodes.size() + ((Graph *)graph)->kernels;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) { delete (Graph *)graph; return cudaSuccess; }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { delete (Graph *)exec; return cudaSuccess; }
cudaError_t cudaGraphRetainUserObject(cudaGraph_t, cudaUserObject_t, unsigned, unsigned) { return cudaSuccess; }

/* Work on a stream. */
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream) {
    if (add(stream, {}, true)) return cudaSuccess;
    return ((cudaError_t (*)(cudaKernel_t, dim3, dim3, void **, size_t, cudaStream_t))dlsym(RTLD_NEXT, "__cudaLaunchKernel"))(
        kernel, grid, block, args, shared, stream);
}
cudaError_t cudaLaunchKernel(const void *kernel, dim3 grid, dim3 block, void **args, size_t shared, cudaStream_t stream) {
    if (add(stream, {}, true)) return cudaSuccess;
    return ((cudaError_t (*)(const void *, dim3, dim3, void **, size_t, cudaStream_t))dlsym(RTLD_NEXT, "cudaLaunchKernel"))(
        kernel, grid, block, args, shared, stream);
}
cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t *config, const void *kernel, void **args) {
    if (add(config->stream, {}, true)) return cudaSuccess;
    return NEXT(cudaLaunchKernelExC)(config, kernel, args);
}
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
    if (capturing(stream)) {
        cudaPointerAttributes of_to, of_from;
        cudaPointerGetAttributes(&of_to, to); cudaPointerGetAttributes(&of_from, from);
        if (of_to.type == cudaMemoryTypeUnregistered || of_from.type == cudaMemoryTypeUnregistered) { broken = true; return cudaErrorStreamCaptureUnsupported; }
        add(stream, [=] { memmove(to, from, size); });
        return cudaSuccess;
    }
    return NEXT(cudaMemcpyAsync)(to, from, size, kind, stream);
}
cudaError_t cudaMemsetAsync(void *to, int value, size_t size, cudaStream_t stream) {
    if (add(stream, [=] { memset(to, value, size); })) return cudaSuccess;
    return NEXT(cudaMemsetAsync)(to, value, size, stream);
}

/* Events carry a capture from one stream to another. */
cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned flags) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (capturing(stream)) events.insert(event); else events.erase(event);
    return NEXT(cudaEventRecordWithFlags)(event, stream, flags);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) { return cudaEventRecordWithFlags(event, stream, 0); }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    std::lock_guard<std::recursive_mutex> held(lock);
    if (current && events.count(event)) {
        if (!stream) { broken = true; return cudaErrorStreamCaptureImplicit; }
        captured.insert(stream);
    }
    else if (capturing(stream)) return cudaErrorStreamCaptureIsolation;
    return NEXT(cudaStreamWaitEvent)(stream, event, flags);
}

/* What a capture cannot contain. */
#define REFUSE(condition) if (condition) { broken = true; return cudaErrorStreamCaptureUnsupported; }
cudaError_t cudaDeviceSynchronize() { REFUSE(unsafe()); return NEXT(cudaDeviceSynchronize)(); }
cudaError_t cudaStreamSynchronize(cudaStream_t stream) { REFUSE(capturing(stream) || unsafe()); return NEXT(cudaStreamSynchronize)(stream); }
cudaError_t cudaStreamQuery(cudaStream_t stream) { REFUSE(capturing(stream) || unsafe()); return NEXT(cudaStreamQuery)(stream); }
cudaError_t cudaEventQuery(cudaEvent_t event) { REFUSE(unsafe()); return NEXT(cudaEventQuery)(event); }
cudaError_t cudaEventSynchronize(cudaEvent_t event) { REFUSE(unsafe()); return NEXT(cudaEventSynchronize)(event); }
cudaError_t cudaMemcpy(void *to, const void *from, size_t size, cudaMemcpyKind kind) { REFUSE(unsafe()); return NEXT(cudaMemcpy)(to, from, size, kind); }
cudaError_t cudaMalloc(void **memory, size_t size) { REFUSE(unsafe()); return NEXT(cudaMalloc)(memory, size); }
cudaError_t cudaHostAlloc(void **memory, size_t size, unsigned flags) { REFUSE(unsafe()); return NEXT(cudaHostAlloc)(memory, size, flags); }
}
