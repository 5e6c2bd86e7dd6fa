#include "illegal_instructions.h"

#ifdef _WIN32
#include <windows.h>

namespace pocketbert {
namespace {

thread_local const CONTEXT* volatile back = nullptr;  // where the thread that tries goes on

LONG CALLBACK handle(EXCEPTION_POINTERS* exception) {
    const DWORD code = exception->ExceptionRecord->ExceptionCode;
    if (!back || (code != EXCEPTION_ILLEGAL_INSTRUCTION && code != EXCEPTION_ACCESS_VIOLATION))
        return EXCEPTION_CONTINUE_SEARCH;
    *exception->ContextRecord = *back;
    return EXCEPTION_CONTINUE_EXECUTION;
}

}  // namespace

bool runs_legally(void (*body)()) {
    void* const handler = AddVectoredExceptionHandler(1, handle);
    CONTEXT here;
    volatile bool tried = false, done = false;
    RtlCaptureContext(&here);  // returns a second time if an instruction is illegal
    if (!tried) {
        tried = true;
        back = &here;
        body();
        done = true;
    }
    back = nullptr;
    RemoveVectoredExceptionHandler(handler);
    return done;
}

}  // namespace pocketbert

#else
#include <setjmp.h>
#include <signal.h>

namespace pocketbert {
namespace {

constexpr int SIGNALS[] = {SIGILL, SIGSEGV};  // SIGSEGV where the kernel has no memory for large registers

thread_local sigjmp_buf* volatile back = nullptr;  // of the thread that tries
struct sigaction old_actions[2];

void handle(int number, siginfo_t* info, void* context) {
    if (back) siglongjmp(*back, 1);
    const struct sigaction& old = old_actions[number == SIGNALS[0] ? 0 : 1];
    if (old.sa_flags & SA_SIGINFO) old.sa_sigaction(number, info, context);
    else if (old.sa_handler == SIG_DFL || old.sa_handler == SIG_IGN)
        signal(number, SIG_DFL);  // the instruction is run again, and ends the process
    else old.sa_handler(number);
}

}  // namespace

bool runs_legally(void (*body)()) {
    struct sigaction action = {};
    action.sa_sigaction = handle;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 2; ++i) sigaction(SIGNALS[i], &action, &old_actions[i]);
    sigjmp_buf here;
    volatile bool done = false;
    if (sigsetjmp(here, 1) == 0) {
        back = &here;
        body();
        done = true;
    }
    back = nullptr;
    for (int i = 0; i < 2; ++i) sigaction(SIGNALS[i], &old_actions[i], nullptr);
    return done;
}

}  // namespace pocketbert
#endif
