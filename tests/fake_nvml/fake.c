/* A false NVIDIA driver: NVML over cards whose state lies in a mapped file, so that it outlives the
   process as a driver's does. `layout.h` is written from the structures in __init__.py; hooks and
   their meaning are told there. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "layout.h"

enum { OK = 0, UNINITIALIZED = 1, INVALID = 2, UNSUPPORTED = 3, DENIED = 4, MISSING = 6, SHORT = 7 };
enum { IDLE = 1, LOCKED = 2, POWER_CAP = 4, SW_THERMAL = 32, HW_THERMAL = 64 };
typedef unsigned int u32;
typedef unsigned long long u64;
typedef struct { u64 total, free, used; } Memory;
typedef struct { u32 version; u64 total, reserved, free, used; } Memory2;
typedef struct { u32 gpu, memory; } Utilization;
typedef struct { u32 pid; u64 bytes; u32 instance, compute; } Process;
typedef struct { char legacy[16]; u32 domain, bus, device, id, subsystem; char bus_id[32]; } Pci;
typedef struct { u32 version, sensor; int value; } TemperatureV;

static Machine *machine;
static int users; /* of this process */

static int open_state(void) {
  if (machine) return OK;
  const char *path = getenv("FAKE_NVML_STATE");
  int file = path ? open(path, O_RDWR) : -1;
  if (file < 0) return 9; /* driver not loaded */
  machine = mmap(NULL, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return OK;
}

static double now(void) {
  if (machine->now > 0) return machine->now;
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* Finds "KIND=name" among the hooks, optionally "name:number" and "name:number@card"; gives the
   number, or -1 where there is no such hook. "*" stands for every name. */
static long hook(const char *kind, const char *name, int card) {
  char text[2 * sizeof machine->hooks], *rest = text, *word;
  const char *more = getenv("FAKE_NVML_HOOKS");
  snprintf(text, sizeof text, "%s %s", machine->hooks, more ? more : "");
  while ((word = strsep(&rest, " "))) {
    size_t n = strlen(kind);
    if (strncmp(word, kind, n) || word[n] != '=') continue;
    char *what = word + n + 1, *at = strchr(what, '@'), *number;
    if (at) {
      if (atoi(at + 1) != card) continue;
      *at = 0;
    }
    if ((number = strchr(what, ':'))) *number++ = 0;
    if (!strcmp(what, name) || !strcmp(what, "*")) return number ? atol(number) : 1;
  }
  return -1;
}

static long number_of(void *handle) { return (long)handle; }
static int index_of(void *handle) { return (int)((number_of(handle) - 1) & 0xff); }
static int mig_of(void *handle) { return (int)((number_of(handle) - 1) >> 8) - 1; } /* -1: a whole card */

static int check(const char *name, void *handle, Card **card) {
  if (!users) return UNINITIALIZED;
  if (!handle) return INVALID;
  int index = index_of(handle);
  if (index >= machine->n_cards) return INVALID;
  long code = hook("FAIL", name, index);
  if (code >= 0) return code;
  *card = &machine->cards[index];
  return (*card)->error;
}

/* What the card does at this moment: 120 W, and up to 580 W more with the cube of its clock. */
typedef struct { double share, watts; u64 reasons; } Doing;

static double celsius(const Card *c, double watts) {
  return c->hot ? c->hot : 28 + watts / 14;
}

static Doing doing(const Card *c) {
  Doing d = {1, 0, 0};
  double peak = c->max_watts - 120.0;
  if (c->load <= 0) return (Doing){(double)c->idle_mhz / c->max_mhz, 70, IDLE};
  if (c->lock_max && c->lock_max < c->max_mhz) {
    d.share = (double)c->lock_max / c->max_mhz;
    d.reasons |= LOCKED;
  }
  double cap = c->power_limit < c->other_limit || !c->other_limit ? c->power_limit : c->other_limit;
  double fits = cbrt(fmax(cap / 1000.0 - 120, 1) / (peak * c->load));
  if (fits < d.share) {
    d.share = fits;
    d.reasons = POWER_CAP;
  }
  d.watts = 120 + peak * c->load * d.share * d.share * d.share;
  if (celsius(c, d.watts) >= c->slowdown) {
    d.share *= 0.7;
    d.reasons |= SW_THERMAL | HW_THERMAL;
    d.watts = 120 + peak * c->load * d.share * d.share * d.share;
  }
  return d;
}

static void pass_time(Card *c) {
  double t = now();
  if (c->energy_at > 0 && t > c->energy_at) c->energy_mj += 1000 * doing(c).watts * (t - c->energy_at);
  c->energy_at = t;
}

static void record(const char *name, int card, u32 a, u32 b) {
  Call *call = &machine->calls[machine->n_calls % CALLS];
  snprintf(call->name, sizeof call->name, "%s", name);
  call->card = card, call->a = a, call->b = b, call->pid = getpid();
  machine->n_calls++;
}

/* The end of every setter: SIGKILL after the nth one, as DIE=name:n wants it. */
static int set(const char *name) {
  machine->n_set++;
  long n = hook("DIE", name, -1);
  if (n > 0 && ++machine->n_deadly == n) {
    msync(machine, sizeof *machine, MS_SYNC);
    kill(getpid(), SIGKILL);
  }
  return OK;
}

static int may_set(const char *name, void *handle, Card **card, u32 a, u32 b) {
  int code = check(name, handle, card);
  if (code) return code;
  if (!machine->permission) return DENIED;
  record(name, index_of(handle), a, b);
  pass_time(*card);
  return OK;
}

#define LIES(name) (hook("LIE", name, index_of(handle)) >= 0)
#define GET(function, type, ...)                                    \
  int function(void *handle, type *out) {                           \
    Card *c;                                                        \
    int code = check(#function, handle, &c);                        \
    if (code) return code;                                          \
    __VA_ARGS__;                                                    \
    return OK;                                                      \
  }

int nvmlInitWithFlags(u32 flags) {
  (void)flags;
  int code = open_state();
  if (code) return code;
  long fails = hook("FAIL", "nvmlInit", -1);
  if (fails >= 0) return fails;
  users++;
  return OK;
}
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) {
  if (!users) return UNINITIALIZED;
  users--;
  return OK;
}

int nvmlSystemGetDriverVersion(char *out, u32 size) {
  if (!users) return UNINITIALIZED;
  long fails = hook("FAIL", "nvmlSystemGetDriverVersion", -1);
  snprintf(out, size, "%s", machine->driver);
  return fails >= 0 ? fails : OK;
}
int nvmlSystemGetNVMLVersion(char *out, u32 size) { snprintf(out, size, "12.%s", machine->driver); return OK; }
int nvmlSystemGetCudaDriverVersion(int *out) { *out = machine->cuda; return OK; }
int nvmlSystemGetCudaDriverVersion_v2(int *out) { *out = machine->cuda; return OK; }
int nvmlDeviceGetCount_v2(u32 *out) {
  if (!users) return UNINITIALIZED;
  long fails = hook("FAIL", "nvmlDeviceGetCount_v2", -1);
  *out = machine->n_cards;
  return fails >= 0 ? fails : OK;
}
int nvmlDeviceGetHandleByIndex_v2(u32 index, void **out) {
  if (!users) return UNINITIALIZED;
  if ((int)index >= machine->n_cards) return INVALID;
  long fails = hook("FAIL", "nvmlDeviceGetHandleByIndex_v2", index);
  *out = (void *)(long)(index + 1);
  return fails >= 0 ? fails : OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **out) {
  for (int i = 0; i < machine->n_cards; i++)
    if (!strcmp(machine->cards[i].uuid, uuid)) return *out = (void *)(long)(i + 1), OK;
  return MISSING;
}
GET(nvmlDeviceGetIndex, u32, *out = index_of(handle))
GET(nvmlDeviceIsMigDeviceHandle, u32, *out = mig_of(handle) >= 0)
GET(nvmlDeviceGetMaxMigDeviceCount, u32, *out = 7)
GET(nvmlDeviceGetDeviceHandleFromMigDeviceHandle, void *, *out = (void *)(long)(index_of(handle) + 1))

int nvmlDeviceGetName(void *handle, char *out, u32 size) {
  Card *c;
  int code = check("nvmlDeviceGetName", handle, &c);
  if (!code) snprintf(out, size, mig_of(handle) < 0 ? "%s" : "%s MIG 1g.10gb", c->name);
  return code;
}
int nvmlDeviceGetUUID(void *handle, char *out, u32 size) {
  Card *c;
  int code = check("nvmlDeviceGetUUID", handle, &c);
  if (code) return code;
  if (mig_of(handle) < 0) snprintf(out, size, "%s", c->uuid);
  else snprintf(out, size, "MIG-%d%s", mig_of(handle), c->uuid + 4);
  return OK;
}
int nvmlDeviceGetMigMode(void *handle, u32 *current, u32 *pending) {
  Card *c;
  int code = check("nvmlDeviceGetMigMode", handle, &c);
  if (code) return code;
  if (c->migs < 0) return UNSUPPORTED;
  return *current = *pending = c->migs > 0, OK;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, u32 k, void **out) {
  Card *c;
  int code = check("nvmlDeviceGetMigDeviceHandleByIndex", handle, &c);
  if (code) return code;
  if ((int)k >= c->migs) return MISSING;
  return *out = (void *)(long)(index_of(handle) + 1 + ((k + 1) << 8)), OK;
}
static u64 size_of(void *handle, Card *c) { return mig_of(handle) < 0 ? c->memory : c->memory / 8; }
GET(nvmlDeviceGetMemoryInfo, Memory, u64 all = size_of(handle, c);
    *out = ((Memory){all, all - c->memory_used, c->memory_used}))
GET(nvmlDeviceGetMemoryInfo_v2, Memory2, u64 all = size_of(handle, c);
    *out = ((Memory2){out->version, all, 0, all - c->memory_used, c->memory_used}))
GET(nvmlDeviceGetPciInfo_v3, Pci, memset(out, 0, sizeof *out); out->bus = c->bus;
    snprintf(out->bus_id, sizeof out->bus_id, "00000000:%02X:00.0", c->bus))
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
  Card *c;
  int code = check("nvmlDeviceGetCudaComputeCapability", handle, &c);
  if (!code) *major = c->capability / 10, *minor = c->capability % 10;
  return code;
}
GET(nvmlDeviceGetPersistenceMode, u32, *out = c->persistence)
GET(nvmlDeviceGetNumFans, u32, *out = 0)

/* Power, in milliwatts; energy, in millijoules. */
GET(nvmlDeviceGetPowerUsage, u32, *out = 1000 * doing(c).watts)
GET(nvmlDeviceGetPowerManagementMode, u32, *out = 1)
GET(nvmlDeviceGetPowerManagementLimit, u32, *out = c->power_limit)
GET(nvmlDeviceGetPowerManagementDefaultLimit, u32, *out = c->default_limit)
GET(nvmlDeviceGetEnforcedPowerLimit, u32,
    *out = c->other_limit && c->other_limit < c->power_limit ? c->other_limit : c->power_limit)
int nvmlDeviceGetPowerManagementLimitConstraints(void *handle, u32 *least, u32 *most) {
  Card *c;
  int code = check("nvmlDeviceGetPowerManagementLimitConstraints", handle, &c);
  if (!code) *least = c->least_limit, *most = c->most_limit;
  return code;
}
int nvmlDeviceSetPowerManagementLimit(void *handle, u32 limit) {
  Card *c;
  int code = may_set(__func__, handle, &c, limit, 0);
  if (code) return code;
  if (limit < c->least_limit || limit > c->most_limit) return INVALID;
  if (!LIES(__func__)) c->power_limit = limit;
  return set(__func__);
}
GET(nvmlDeviceGetTotalEnergyConsumption, u64, pass_time(c); *out = c->energy_mj)

/* Clocks, in megahertz. Kinds: 0 graphics, 1 SM, 2 memory, 3 video. */
int nvmlDeviceGetClockInfo(void *handle, u32 kind, u32 *out) {
  Card *c;
  int code = check("nvmlDeviceGetClockInfo", handle, &c);
  if (code) return code;
  u32 memory = c->memory_lock_max ? c->memory_lock_max : c->memory_mhz;
  return *out = kind == 2 ? memory : (u32)(doing(c).share * c->max_mhz / 15) * 15, OK;
}
int nvmlDeviceGetMaxClockInfo(void *handle, u32 kind, u32 *out) {
  Card *c;
  int code = check("nvmlDeviceGetMaxClockInfo", handle, &c);
  if (!code) *out = kind == 2 ? c->memory_mhz : c->max_mhz;
  return code;
}
int nvmlDeviceGetSupportedMemoryClocks(void *handle, u32 *count, u32 *out) {
  Card *c;
  int code = check("nvmlDeviceGetSupportedMemoryClocks", handle, &c);
  if (code) return code;
  if (*count < 2) return *count = 2, SHORT;
  return *count = 2, out[0] = c->memory_mhz, out[1] = c->memory_mhz * 3 / 5, OK;
}
int nvmlDeviceGetSupportedGraphicsClocks(void *handle, u32 memory, u32 *count, u32 *out) {
  (void)memory;
  Card *c;
  int code = check("nvmlDeviceGetSupportedGraphicsClocks", handle, &c);
  if (code) return code;
  u32 n = (c->max_mhz - c->idle_mhz) / 15 + 1;
  if (*count < n) return *count = n, SHORT;
  for (u32 i = 0; i < n; i++) out[i] = c->max_mhz - 15 * i;
  return *count = n, OK;
}
#define LOCK(function, low, high)                                   \
  int function(void *handle, u32 least, u32 most) {                 \
    Card *c;                                                        \
    int code = may_set(#function, handle, &c, least, most);         \
    if (code) return code;                                          \
    if (least > most) return INVALID;                               \
    if (!LIES(#function)) c->low = least, c->high = most;           \
    return set(#function);                                          \
  }
#define UNLOCK(function, low, high)                                 \
  int function(void *handle) {                                      \
    Card *c;                                                        \
    int code = may_set(#function, handle, &c, 0, 0);                \
    if (code) return code;                                          \
    if (!LIES(#function)) c->low = c->high = 0;                     \
    return set(#function);                                          \
  }
LOCK(nvmlDeviceSetGpuLockedClocks, lock_min, lock_max)
UNLOCK(nvmlDeviceResetGpuLockedClocks, lock_min, lock_max)
LOCK(nvmlDeviceSetMemoryLockedClocks, memory_lock_min, memory_lock_max)
UNLOCK(nvmlDeviceResetMemoryLockedClocks, memory_lock_min, memory_lock_max)
int nvmlDeviceSetPersistenceMode(void *handle, u32 mode) {
  Card *c;
  int code = may_set(__func__, handle, &c, mode, 0);
  if (code) return code;
  if (!LIES(__func__)) c->persistence = mode;
  return set(__func__);
}
GET(nvmlDeviceGetCurrentClocksThrottleReasons, u64, *out = doing(c).reasons | c->more_reasons)
GET(nvmlDeviceGetCurrentClocksEventReasons, u64, *out = doing(c).reasons | c->more_reasons)
GET(nvmlDeviceGetSupportedClocksThrottleReasons, u64, *out = 2047)
GET(nvmlDeviceGetSupportedClocksEventReasons, u64, *out = 2047)

/* Temperatures, in degrees Celsius. Thresholds: 0 shutdown, 1 slowdown, 2 memory, 3 GPU. */
int nvmlDeviceGetTemperature(void *handle, u32 sensor, u32 *out) {
  (void)sensor;
  Card *c;
  int code = check("nvmlDeviceGetTemperature", handle, &c);
  if (!code) *out = celsius(c, doing(c).watts);
  return code;
}
int nvmlDeviceGetTemperatureV(void *handle, TemperatureV *out) {
  u32 found = 0;
  int code = nvmlDeviceGetTemperature(handle, out->sensor, &found);
  out->value = found;
  return code;
}
int nvmlDeviceGetTemperatureThreshold(void *handle, u32 which, u32 *out) {
  Card *c;
  int code = check("nvmlDeviceGetTemperatureThreshold", handle, &c);
  if (!code) *out = which == 0 ? c->slowdown + 5 : which == 2 ? 95 : which == 3 ? c->gpu_max : c->slowdown;
  return code;
}
int nvmlDeviceSetTemperatureThreshold(void *handle, u32 which, int *value) {
  Card *c;
  int code = may_set(__func__, handle, &c, which, *value);
  if (code) return code;
  if (which != 3) return UNSUPPORTED;
  if (!LIES(__func__)) c->gpu_max = *value;
  return set(__func__);
}

GET(nvmlDeviceGetUtilizationRates, Utilization, *out = ((Utilization){100 * c->load, 40 * c->load}))
static int processes(const char *name, void *handle, u32 *count, Process *out) {
  Card *c;
  int code = check(name, handle, &c);
  if (code) return code;
  u32 n = 0;
  while (n < PIDS && c->pids[n]) n++;
  if (*count < n) return *count = n, SHORT;
  for (u32 i = 0; i < n; i++) out[i] = (Process){c->pids[i], c->memory_used / n, ~0u, ~0u};
  return *count = n, OK;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, u32 *count, Process *out) {
  return processes("nvmlDeviceGetComputeRunningProcesses_v3", handle, count, out);
}
int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, u32 *count, Process *out) {
  Card *c;
  (void)out;
  int code = check("nvmlDeviceGetGraphicsRunningProcesses_v3", handle, &c);
  return *count = 0, code;
}
