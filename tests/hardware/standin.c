/* A stand-in for libnvidia-ml.so.1: what NVML answers on machines that tests cannot have. STANDIN says which.
 *   h100    two H100                     lost     the second of them fell off the bus
 *   mig     an A100 cut into two slices  garbage  every value is one that NVML is known to give by mistake
 *   hang    never answers                crash    kills its process
 *   nodriver, mismatch, silent           initialisation fails; silent: no error code that anybody knows */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, MISMATCH = 18 };
typedef struct { int index, slot; } *Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;

static struct { int index, slot; } devices[2][3];

static int is(const char *what) {
    const char *said = getenv("STANDIN");
    return said && !strcmp(said, what);
}

const char *nvmlErrorString(int code) {
    return code == GPU_IS_LOST ? "GPU is lost" : code == MISMATCH ? "Driver/library version mismatch" : "Stand-in error";
}

int nvmlInitWithFlags(unsigned flags) {
    if (is("hang")) for (;;) pause();
    if (is("crash")) abort();
    return is("nodriver") ? DRIVER_NOT_LOADED : is("mismatch") ? MISMATCH : is("silent") ? 4711 : OK;
}

int nvmlShutdown(void) { return OK; }

static int text(char *to, unsigned room, const char *what) {
    strncpy(to, what, room);
    return OK;
}

int nvmlSystemGetDriverVersion(char *to, unsigned room) { return text(to, room, is("garbage") ? "\xff\xfe" : "595.45.04"); }
int nvmlSystemGetNVMLVersion(char *to, unsigned room) { return text(to, room, "13.595.45.04"); }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = is("mig") ? 1 : is("endless") ? 2147483632 : 2;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    if (is("lost") && index == 1) return GPU_IS_LOST;
    devices[index][0].index = index;
    *device = (Device)&devices[index][0];
    return OK;
}

int nvmlDeviceGetName(Device device, char *to, unsigned room) {
    if (is("garbage")) return text(to, room, device->index ? "\xc3\x28" : "");
    if (is("mig")) return text(to, room, device->slot ? "NVIDIA A100-SXM4-80GB MIG 3g.40gb" : "NVIDIA A100-SXM4-80GB");
    return text(to, room, "NVIDIA H100 80GB HBM3");
}

int nvmlDeviceGetUUID(Device device, char *to, unsigned room) {
    if (is("garbage")) return NOT_SUPPORTED;
    text(to, room, device->slot ? "MIG-0000000" : "GPU-0000000");
    to[4] = '0' + device->index;
    to[5] = '0' + device->slot;
    return OK;
}

int nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
    memory->total = is("garbage") ? (device->index ? ~0ull : 0) : (device->slot ? 40326ull : is("mig") ? 81920ull : 81559ull) << 20;
    return OK;
}

int nvmlDeviceGetPciInfo_v3(Device device, Pci *pci) {
    if (device->slot) return NOT_SUPPORTED;
    pci->id = is("garbage") ? 0xffffffffu : 0x233010deu;
    return OK;
}

int nvmlDeviceGetCudaComputeCapability(Device device, int *major, int *minor) {
    *major = is("garbage") ? -16 : 9;
    *minor = 0;
    return OK;
}

int nvmlDeviceGetMigMode(Device device, unsigned *current, unsigned *pending) {
    *current = *pending = is("mig");
    return is("mig") ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetMaxMigDeviceCount(Device device, unsigned *count) {
    *count = 7;
    return OK;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Device device, unsigned slot, Device *part) {
    if (slot > 1) return NOT_FOUND;
    devices[device->index][slot + 1].index = device->index;
    devices[device->index][slot + 1].slot = slot + 1;
    *part = (Device)&devices[device->index][slot + 1];
    return OK;
}
