// Trying instructions that the processor may not have.
#pragma once

namespace pocketbert {

// Calls `body`, which must own nothing that needs freeing, and returns whether it came to its end: not so if one of its
// instructions was illegal, or the system refused memory for the registers. Changes the process's handlers of those
// signals while it runs; signals of other threads reach their old handlers. One call at a time.
bool runs_legally(void (*body)());

}  // namespace pocketbert
