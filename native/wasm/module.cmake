target_compile_options(kernels_test PRIVATE -fno-exceptions) # it needs none, and wasmtime knows only a later form of them

# The core as a WebAssembly module: the functions of include/pocketbert.h, malloc and free. It imports a clock, no more.
add_executable(pocketbert ${exceptions} ${core})
set_target_properties(pocketbert PROPERTIES SUFFIX .wasm)
target_compile_options(pocketbert PRIVATE -fvisibility=hidden)

file(STRINGS include/pocketbert.h declarations REGEX "^PB_API ")
set(exports -Wl,--export=malloc -Wl,--export=free)
foreach(declaration IN LISTS declarations)
  string(REGEX MATCH "pb_[a-z0-9_]+\\(" name "${declaration}")
  string(REPLACE "(" "" name "${name}")
  list(APPEND exports "-Wl,--export=${name}")
endforeach()
# The stack lies first: what overflows it is outside of the memory, and overwrites nothing.
target_link_options(pocketbert PRIVATE -mexec-model=reactor -s -Wl,--gc-sections
                                       "-Wl,-z,stack-size=262144" ${exports})
