/* Hides AVX-512, VNNI, AMX and all that came after AVX2 from a process, at full speed, so that libraries take the
 * kernels that they take on an older processor. Linux on x86-64 whose /proc/cpuinfo has cpuid_fault:
 *
 *     gcc -O1 -shared -fPIC -o avx2_only.so tests/support/avx2_only.c -ldl
 *     LD_PRELOAD=$PWD/avx2_only.so python3 dev.py test
 *
 * Such kernels add in another order, and int8 products saturate without VNNI. Where cpuid_fault is missing, qemu's user
 * mode runs single tests, slowly: qemu-x86_64 -cpu Haswell .venv-dev/bin/python -m pytest TEST (release 7.2 crashes at
 * times, and numpy's minimum of a strided array is wrong in it). ATEN_CPU_CAPABILITY=avx2 and ONEDNN_MAX_CPU_ISA=AVX2
 * limit torch and oneDNN only.
 *
 * The kernel is asked to let CPUID fault; the handler runs it and clears bits of the answer. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_SET_CPUID 0x1012
#define HASWELL 0x306c3

static int (*set_action)(int, const struct sigaction *, struct sigaction *);
static struct sigaction program; /* What the program itself wants done at SIGSEGV. */

static long allow_cpuid(unsigned long allowed) { return syscall(SYS_arch_prctl, ARCH_SET_CPUID, allowed); }

static void on_fault(int number, siginfo_t *info, void *context) {
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    const unsigned char *code = (const unsigned char *)registers[REG_RIP];
    if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2) {
        unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
        allow_cpuid(1);
        __cpuid_count(leaf, part, a, b, c, d);
        allow_cpuid(0);
        if (leaf == 1) { /* Some libraries go by family and model. */
            a = HASWELL;
        } else if (leaf == 7 && part == 0) { /* Its ebx keeps what Haswell has: up to AVX2, BMI and their like. */
            a = c = 0;
            b &= 0x0000ffff;
            d &= 0xfc000000; /* Bits that have to do with speculation alone. */
        } else if (leaf == 7 || leaf == 0x19 || leaf == 0x1d || leaf == 0x1e || leaf == 0x24) { /* VNNI, AMX, AVX10. */
            a = b = c = d = 0;
        }
        registers[REG_RAX] = a, registers[REG_RBX] = b, registers[REG_RCX] = c, registers[REG_RDX] = d;
        registers[REG_RIP] += 2;
    } else if (program.sa_flags & SA_SIGINFO) {
        program.sa_sigaction(number, info, context);
    } else if (program.sa_handler != SIG_DFL && program.sa_handler != SIG_IGN) {
        program.sa_handler(number);
    } else {
        set_action(SIGSEGV, &program, NULL); /* The instruction faults again, and ends the process. */
    }
}

/* Python's faulthandler and others put handlers of their own in place; they get what is no CPUID. */
int sigaction(int number, const struct sigaction *wanted, struct sigaction *old) {
    if (number != SIGSEGV) {
        if (!set_action) *(void **)&set_action = dlsym(RTLD_NEXT, "sigaction");
        return set_action(number, wanted, old);
    }
    struct sigaction before = program;
    if (wanted) program = *wanted;
    if (old) *old = before;
    return 0;
}

__attribute__((constructor)) static void start(void) {
    /* A compiler that torch.compile starts has a handler of its own, set without sigaction; it computes nothing for us. */
    if (!strncmp(program_invocation_short_name, "cc1", 3)) return;
    struct sigaction ours;
    memset(&ours, 0, sizeof ours);
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER; /* Not SA_ONSTACK: with AMX a frame is larger than faulthandler's stack. */
    *(void **)&set_action = dlsym(RTLD_NEXT, "sigaction");
    set_action(SIGSEGV, &ours, NULL);
    if (allow_cpuid(0)) {
        static const char message[] = "avx2_only: this system cannot hide CPUID\n";
        if (write(2, message, sizeof message - 1)) _exit(1);
    }
}
