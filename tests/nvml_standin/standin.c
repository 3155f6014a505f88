/* A stand-in for libnvidia-ml.so.1: what NVML answers on machines that tests cannot have.
 *
 * The file named by NVML_STANDIN says what there is, a line each, fields by `;`:
 *   driver version=595.45.04;nvml=13.595.45.04
 *   device uuid=GPU-…;name=NVIDIA H100 80GB HBM3;memory_mib=81559;…        (in NVML's order; keys: see `set`)
 *   slice parent=GPU-…;uuid=MIG-…;profile=3g.40gb;gi=1;ci=0;gpu_slices=3;compute_slices=3;memory_mib=40326
 *   process uuid=GPU-…;pid=42;used=1073741824;kind=compute|graphics|mps
 *   xid uuid=GPU-…;number=79;id=1                                             (each id is told once)
 *   fail call=nvmlDeviceGetName;uuid=*;code=15                                (call and uuid may be *)
 *   slow call=*;uuid=*;ms=100                                                 (30,000 is a hang)
 *   kill call=nvmlInitWithFlags                                               (abort)
 *   log path=/tmp/calls                                                       (a line for each call: symbol uuid)
 * It is read again whenever it was replaced, so devices come and go under the feet of whoever asks. A handle of a device
 * that is gone says GPU_IS_LOST; one of a device whose slices were cut anew, NOT_FOUND. Structs as in nvml.h 13.5. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
       DRIVER_NOT_LOADED = 9, TIMEOUT = 10, GPU_IS_LOST = 15, ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999 };
enum { COMPUTE = 1, GRAPHICS = 2, MPS = 4 };
#define MANY 256
#define UNSET (~0ull - 1)

typedef unsigned long long u64;
typedef struct Device {
    char uuid[96], name[160], profile[32], bus[32];
    int present, is_slice, order;
    struct Device *parent;
    u64 memory_mib, reserved_mib, used_mib, pci, cores, mig, gi, ci, gpu_slices, compute_slices, sms;
    u64 util, memory_util, energy_mj, energy_at_ns, energy_mw, power_mw, sm_mhz, mem_mhz, throttle, ecc, ecc_fixed, ecc_lost;
    int cc_major, cc_minor;
} *Handle;
typedef struct { char call[80], uuid[96]; long long value; } Rule;
typedef struct { Handle device; unsigned pid, gi, ci, kinds; u64 used; } Process;
typedef struct { Handle device; u64 number, id; } Fault;

static struct Device devices[MANY];
static Rule fails[MANY], slows[MANY], kills[MANY];
static Process processes[MANY];
static Fault faults[MANY];
static int n_devices, n_fails, n_slows, n_kills, n_processes, n_faults, n_orders, initialised, has_driver;
static long long count_override;
static u64 told;                      /* xids up to this id */
static char driver[80], nvml[80], log_path[4096];
static struct stat seen;

/* --- The file --- */

static char *field(char *line, const char *key, char *into, size_t room) {
    char *at = line;
    size_t length = strlen(key);
    while (at) {
        if (!strncmp(at, key, length) && at[length] == '=') {
            char *end = strchr(at += length + 1, ';');
            size_t size = end ? (size_t)(end - at) : strlen(at);
            if (size >= room) size = room - 1;
            memcpy(into, at, size);
            into[size] = 0;
            return into;
        }
        at = strchr(at, ';');
        if (at) at++;
    }
    return NULL;
}

static u64 number(char *line, const char *key, u64 otherwise) {
    char text[64];
    return field(line, key, text, sizeof text) ? strtoull(text, NULL, 0) : otherwise;
}

static Handle find(const char *uuid) {
    for (int at = 0; at < n_devices; at++)
        if (!strcmp(devices[at].uuid, uuid)) return &devices[at];
    return NULL;
}

static Handle entry(char *line) {
    char uuid[96] = "";
    field(line, "uuid", uuid, sizeof uuid);
    Handle device = find(uuid);
    if (!device) {
        if (n_devices == MANY) abort();
        device = &devices[n_devices++];
        memset(device, 0, sizeof *device);
        strcpy(device->uuid, uuid);
    }
    return device;
}

static void set(Handle d, char *line) {
    char cc[16];
    d->present = 1;
    d->order = d->is_slice ? -1 : n_orders++;
    if (!field(line, "name", d->name, sizeof d->name)) strcpy(d->name, d->parent ? d->parent->name : "NVIDIA Graphics Device");
    if (!field(line, "bus", d->bus, sizeof d->bus)) snprintf(d->bus, sizeof d->bus, "%08X:%02X:00.0", 0, 16 + d->order);
    d->memory_mib = number(line, "memory_mib", UNSET), d->reserved_mib = number(line, "reserved_mib", 600);
    d->used_mib = number(line, "used_mib", 0), d->pci = number(line, "pci", UNSET), d->cores = number(line, "cores", UNSET);
    d->mig = number(line, "mig", UNSET), d->sms = number(line, "sms", UNSET);
    d->gi = number(line, "gi", UNSET), d->ci = number(line, "ci", UNSET);
    d->gpu_slices = number(line, "gpu_slices", UNSET), d->compute_slices = number(line, "compute_slices", UNSET);
    d->util = number(line, "util", UNSET), d->memory_util = number(line, "memory_util", 0);
    d->energy_mj = number(line, "energy_mj", UNSET), d->energy_at_ns = number(line, "energy_at_ns", UNSET);
    d->energy_mw = number(line, "energy_mw", 0), d->power_mw = number(line, "power_mw", UNSET);
    d->sm_mhz = number(line, "sm_mhz", UNSET), d->mem_mhz = number(line, "mem_mhz", UNSET);
    d->throttle = number(line, "throttle", UNSET), d->ecc = number(line, "ecc", UNSET);
    d->ecc_fixed = number(line, "ecc_corrected", 0), d->ecc_lost = number(line, "ecc_uncorrected", 0);
    d->cc_major = d->cc_minor = -1;
    if (field(line, "cc", cc, sizeof cc)) sscanf(cc, "%d.%d", &d->cc_major, &d->cc_minor);
}

static void rule(Rule *rules, int *count, char *line, const char *value) {
    if (*count == MANY) return;
    Rule *new = &rules[(*count)++];
    if (!field(line, "call", new->call, sizeof new->call)) strcpy(new->call, "*");
    if (!field(line, "uuid", new->uuid, sizeof new->uuid)) strcpy(new->uuid, "*");
    new->value = (long long)number(line, value, 0);
}

static void read_line(char *line) {
    char word[96] = "", kind[96] = "compute";
    char *rest = strchr(line, ' ');
    if (!rest || *line == '#') return;
    *rest++ = 0;
    if (!strcmp(line, "driver")) {
        has_driver = 1;
        field(rest, "version", driver, sizeof driver);
        field(rest, "nvml", nvml, sizeof nvml);
        count_override = (long long)number(rest, "count", (u64)-1);
    } else if (!strcmp(line, "device")) {
        Handle d = entry(rest);
        d->is_slice = 0, d->parent = NULL;
        set(d, rest);
    } else if (!strcmp(line, "slice")) {
        Handle d = entry(rest);
        d->is_slice = 1, d->parent = find(field(rest, "parent", word, sizeof word) ? word : "");
        set(d, rest);
        if (!field(rest, "profile", d->profile, sizeof d->profile)) *d->profile = 0;
    } else if (!strcmp(line, "process") && n_processes < MANY) {
        Process *p = &processes[n_processes++];
        p->device = find(field(rest, "uuid", word, sizeof word) ? word : "");
        p->pid = (unsigned)number(rest, "pid", 0), p->used = number(rest, "used", ~0ull);
        field(rest, "kind", kind, sizeof kind);
        p->kinds = (strstr(kind, "compute") ? COMPUTE : 0) | (strstr(kind, "graphics") ? GRAPHICS : 0) | (strstr(kind, "mps") ? MPS : 0);
    } else if (!strcmp(line, "xid") && n_faults < MANY) {
        Fault *f = &faults[n_faults++];
        f->device = find(field(rest, "uuid", word, sizeof word) ? word : "");
        f->number = number(rest, "number", 79), f->id = number(rest, "id", 1);
    } else if (!strcmp(line, "fail")) rule(fails, &n_fails, rest, "code");
    else if (!strcmp(line, "slow")) rule(slows, &n_slows, rest, "ms");
    else if (!strcmp(line, "kill")) rule(kills, &n_kills, rest, "none");
    else if (!strcmp(line, "log")) field(rest, "path", log_path, sizeof log_path);
}

static void look(void) {
    const char *path = getenv("NVML_STANDIN");
    struct stat now;
    if (!path || stat(path, &now)) return;
    if (now.st_ino == seen.st_ino && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec && now.st_mtim.tv_sec == seen.st_mtim.tv_sec) return;
    FILE *file = fopen(path, "re");
    if (!file) return;
    seen = now;
    n_fails = n_slows = n_kills = n_processes = n_faults = n_orders = has_driver = 0;
    *log_path = 0, count_override = -1;
    for (int at = 0; at < n_devices; at++) devices[at].present = 0;
    char line[4096];
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        read_line(line);
    }
    fclose(file);
}

/* --- Every call begins here --- */

static int applies(const Rule *r, const char *call, Handle device) {
    return (!strcmp(r->call, "*") || !strcmp(r->call, call)) &&
           (!strcmp(r->uuid, "*") || (device && !strcmp(r->uuid, device->uuid)));
}

static int enter(const char *call, Handle device, int needs_init) {
    look();
    if (*log_path) {
        int file = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        char text[256];
        int size = snprintf(text, sizeof text, "%s %s\n", call, device ? device->uuid : "-");
        if (file >= 0 && write(file, text, (size_t)size)) close(file);
    }
    for (int at = 0; at < n_kills; at++)
        if (applies(&kills[at], call, device)) abort();
    for (int at = 0; at < n_slows; at++)
        if (applies(&slows[at], call, device)) {
            struct timespec left = {slows[at].value / 1000, slows[at].value % 1000 * 1000000};
            nanosleep(&left, NULL);
        }
    for (int at = 0; at < n_fails; at++)
        if (applies(&fails[at], call, device)) return (int)fails[at].value;
    if (needs_init && !initialised) return UNINITIALIZED;
    if (needs_init && !has_driver) return DRIVER_NOT_LOADED;
    if (device && !device->present) return device->is_slice ? NOT_FOUND : GPU_IS_LOST;
    if (device && device->parent && !device->parent->present) return GPU_IS_LOST;
    return OK;
}

#define ENTER(device) do { int said = enter(__func__, device, 1); if (said) return said; } while (0)

static int text(char *to, unsigned room, const char *what) {
    if (strlen(what) >= room) return INSUFFICIENT_SIZE;
    for (; *what; what++)                                   /* \xNN stands for a byte that a scenario cannot hold */
        if (what[0] == '\\' && what[1] == 'x') {
            char digits[3] = {what[2], what[3], 0};
            *to++ = (char)strtoul(digits, NULL, 16), what += 3;
        } else *to++ = *what;
    *to = 0;
    return OK;
}

static int tell(unsigned *to, u64 value) {
    if (value == UNSET) return NOT_SUPPORTED;
    *to = (unsigned)value;
    return OK;
}

/* --- System --- */

int nvmlInitWithFlags(unsigned flags) {
    int said = enter(__func__, NULL, 0);
    if (said) return said;
    (void)flags;
    if (!has_driver) return DRIVER_NOT_LOADED;
    initialised++;
    return OK;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
    ENTER(NULL);
    initialised--;
    return OK;
}

const char *nvmlErrorString(int code) {
    static char said[40];
    snprintf(said, sizeof said, "Stand-in error %d", code);
    return said;
}

int nvmlSystemGetDriverVersion(char *to, unsigned room) { ENTER(NULL); return text(to, room, driver); }
int nvmlSystemGetNVMLVersion(char *to, unsigned room) { int said = enter(__func__, NULL, 0); return said ? said : text(to, room, nvml); }
int nvmlSystemGetCudaDriverVersion(int *to) { ENTER(NULL); *to = 13000; return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *to) { ENTER(NULL); *to = 13000; return OK; }

/* --- Which devices there are --- */

int nvmlDeviceGetCount_v2(unsigned *count) {
    ENTER(NULL);
    *count = count_override >= 0 ? (unsigned)count_override : (unsigned)n_orders;
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Handle *device) {
    look();
    for (int at = 0; at < n_devices; at++)
        if (devices[at].present && devices[at].order == (int)index) {
            ENTER(&devices[at]);
            *device = &devices[at];
            return OK;
        }
    ENTER(NULL);
    return INVALID_ARGUMENT;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Handle *device) {
    look();
    Handle found = find(uuid);
    ENTER(found);
    *device = found;
    return found ? OK : NOT_FOUND;
}

int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, Handle *device) {
    ENTER(NULL);
    for (int at = 0; at < n_devices; at++)
        if (devices[at].present && !devices[at].is_slice && !strcmp(devices[at].bus, bus)) return *device = &devices[at], OK;
    return NOT_FOUND;
}

int nvmlDeviceGetIndex(Handle d, unsigned *index) { ENTER(d); return tell(index, d->order < 0 ? UNSET : (u64)d->order); }

/* --- Identity --- */

int nvmlDeviceGetUUID(Handle d, char *to, unsigned room) { ENTER(d); return text(to, room, d->uuid); }

int nvmlDeviceGetName(Handle d, char *to, unsigned room) {
    ENTER(d);
    char name[256];
    snprintf(name, sizeof name, "%s MIG %s", d->name, d->profile);
    return text(to, room, d->is_slice ? name : d->name);
}

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;

int nvmlDeviceGetPciInfo_v3(Handle d, Pci *pci) {
    ENTER(d);
    memset(pci, 0, sizeof *pci);
    if (d->is_slice) d = d->parent;
    if (d->pci == UNSET) return NOT_SUPPORTED;
    pci->id = (unsigned)d->pci;
    sscanf(d->bus, "%X:%X:%X", &pci->domain, &pci->bus, &pci->device);
    return text(pci->bus_id, sizeof pci->bus_id, d->bus);
}

int nvmlDeviceGetCudaComputeCapability(Handle d, int *major, int *minor) {
    ENTER(d);
    if (d->is_slice) d = d->parent;
    *major = d->cc_major, *minor = d->cc_minor;
    return OK;
}

int nvmlDeviceGetNumGpuCores(Handle d, unsigned *cores) { ENTER(d); return tell(cores, d->mig == 1 ? UNSET : d->cores); }

/* --- Slices --- */

int nvmlDeviceGetMigMode(Handle d, unsigned *current, unsigned *pending) {
    ENTER(d);
    if (d->mig == UNSET || d->is_slice) return NOT_SUPPORTED;
    *current = *pending = (unsigned)d->mig;
    return OK;
}

int nvmlDeviceGetMaxMigDeviceCount(Handle d, unsigned *count) { ENTER(d); *count = d->mig == UNSET ? 0 : 7; return OK; }

int nvmlDeviceGetMigDeviceHandleByIndex(Handle d, unsigned index, Handle *part) {
    ENTER(d);
    for (int at = 0; at < n_devices; at++)
        if (devices[at].present && devices[at].parent == d && !index--) return *part = &devices[at], OK;
    return NOT_FOUND;
}

int nvmlDeviceIsMigDeviceHandle(Handle d, unsigned *is) { ENTER(d); *is = (unsigned)d->is_slice; return OK; }

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Handle part, Handle *d) {
    ENTER(part);
    return part->is_slice ? *d = part->parent, OK : INVALID_ARGUMENT;
}

int nvmlDeviceGetGpuInstanceId(Handle d, unsigned *id) { ENTER(d); return tell(id, d->is_slice ? d->gi : UNSET); }
int nvmlDeviceGetComputeInstanceId(Handle d, unsigned *id) { ENTER(d); return tell(id, d->is_slice ? d->ci : UNSET); }

typedef struct { unsigned sms, copy, decoders, encoders, jpeg, ofa, gpu_slices, compute_slices; u64 memory_mib; } Attributes;

int nvmlDeviceGetAttributes_v2(Handle d, Attributes *a) {
    ENTER(d);
    if (!d->is_slice) return NOT_SUPPORTED;
    memset(a, 0, sizeof *a);
    a->sms = (unsigned)d->sms, a->gpu_slices = (unsigned)d->gpu_slices, a->compute_slices = (unsigned)d->compute_slices;
    a->memory_mib = d->memory_mib;
    return OK;
}

/* --- Load --- */

typedef struct { u64 total, free, used; } Memory;
typedef struct { unsigned version; u64 total, reserved, free, used; } Memory2;

int nvmlDeviceGetMemoryInfo(Handle d, Memory *m) {
    ENTER(d);
    if (d->memory_mib == UNSET) return NOT_SUPPORTED;
    m->total = d->memory_mib << 20, m->used = (d->used_mib + d->reserved_mib) << 20, m->free = m->total - m->used;
    return OK;
}

int nvmlDeviceGetMemoryInfo_v2(Handle d, Memory2 *m) {
    ENTER(d);
    if (m->version != 0x02000028) return ARGUMENT_VERSION_MISMATCH;
    if (d->memory_mib == UNSET) return NOT_SUPPORTED;
    m->total = d->memory_mib << 20, m->used = d->used_mib << 20, m->reserved = d->reserved_mib << 20;
    m->free = m->total - m->used - m->reserved;
    return OK;
}

int nvmlDeviceGetUtilizationRates(Handle d, unsigned rates[2]) {
    ENTER(d);
    if (d->util == UNSET || d->is_slice || d->mig == 1) return NOT_SUPPORTED;
    rates[0] = (unsigned)d->util, rates[1] = (unsigned)d->memory_util;
    return OK;
}

int nvmlDeviceGetTotalEnergyConsumption(Handle d, u64 *energy) {
    ENTER(d);
    if (d->energy_mj == UNSET || d->is_slice) return NOT_SUPPORTED;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    u64 now_ns = (u64)now.tv_sec * 1000000000 + (u64)now.tv_nsec;
    u64 since_ns = d->energy_at_ns == UNSET || now_ns < d->energy_at_ns ? 0 : now_ns - d->energy_at_ns;
    *energy = d->energy_mj + since_ns / 1000 * d->energy_mw / 1000000;
    return OK;
}

int nvmlDeviceGetPowerUsage(Handle d, unsigned *power) { ENTER(d); return tell(power, d->is_slice ? UNSET : d->power_mw); }

int nvmlDeviceGetClockInfo(Handle d, unsigned kind, unsigned *mhz) {
    ENTER(d);
    return tell(mhz, d->is_slice ? UNSET : kind == 2 ? d->mem_mhz : d->sm_mhz);
}

static int throttle(Handle d, u64 *reasons) {
    if (d->throttle == UNSET) return NOT_SUPPORTED;
    *reasons = d->throttle;
    return OK;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Handle d, u64 *reasons) { ENTER(d); return throttle(d, reasons); }
int nvmlDeviceGetCurrentClocksEventReasons(Handle d, u64 *reasons) { ENTER(d); return throttle(d, reasons); }

int nvmlDeviceGetEccMode(Handle d, unsigned *current, unsigned *pending) {
    ENTER(d);
    *pending = (unsigned)d->ecc;
    return tell(current, d->ecc);
}

int nvmlDeviceGetTotalEccErrors(Handle d, unsigned type, unsigned counter, u64 *count) {
    ENTER(d);
    (void)counter;
    if (d->ecc != 1) return NOT_SUPPORTED;
    *count = type ? d->ecc_lost : d->ecc_fixed;
    return OK;
}

/* --- Processes: of a GPU all of them with the ids of their slices, of a slice its own --- */

typedef struct { unsigned pid; u64 used; unsigned gi, ci; } Info;

static int list(Handle d, unsigned kind, unsigned *count, Info *infos) {
    unsigned room = infos ? *count : 0, found = 0;
    for (int at = 0; at < n_processes; at++) {
        Process *p = &processes[at];
        if (!p->device || !(p->kinds & kind) || !(p->device == d || p->device->parent == d)) continue;
        if (found < room) {
            int in_slice = p->device->is_slice;
            Info info = {p->pid, p->used, in_slice ? (unsigned)p->device->gi : ~0u, in_slice ? (unsigned)p->device->ci : ~0u};
            infos[found] = info;
        }
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : OK;
}

#define LIST(symbol, kind) int symbol(Handle d, unsigned *count, Info *infos) { ENTER(d); return list(d, kind, count, infos); }
LIST(nvmlDeviceGetComputeRunningProcesses_v3, COMPUTE)
LIST(nvmlDeviceGetComputeRunningProcesses_v2, COMPUTE)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v3, GRAPHICS)
LIST(nvmlDeviceGetGraphicsRunningProcesses_v2, GRAPHICS)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v3, MPS)
LIST(nvmlDeviceGetMPSComputeRunningProcesses_v2, MPS)

/* --- Events --- */

typedef struct { Handle device; u64 type, data; unsigned gi, ci; } Event;

int nvmlEventSetCreate(void **events) { ENTER(NULL); *events = &told; return OK; }
int nvmlEventSetFree(void *events) { ENTER(NULL); (void)events; return OK; }
int nvmlDeviceRegisterEvents(Handle d, u64 types, void *events) { ENTER(d); (void)types, (void)events; return d->is_slice ? NOT_SUPPORTED : OK; }

int nvmlEventSetWait_v2(void *events, Event *event, unsigned timeout_ms) {
    ENTER(NULL);
    (void)events, (void)timeout_ms;
    for (int at = 0; at < n_faults; at++)
        if (faults[at].id > told) {
            told = faults[at].id;
            Event new = {faults[at].device, 8, faults[at].number, ~0u, ~0u};
            *event = new;
            return OK;
        }
    for (int at = 0; at < n_devices; at++)                       /* as the driver: at once, again and again */
        if (!devices[at].is_slice && !devices[at].present) return GPU_IS_LOST;
    return TIMEOUT;
}
