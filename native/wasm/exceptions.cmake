# C++ exceptions in WebAssembly. The C++ library that zig builds for it has none; their runtime is in zig's sources of that
# library, of which these few are compiled here.
enable_language(C)
get_filename_component(zig_library "${CMAKE_CXX_COMPILER}" DIRECTORY)
set(zig_library "${zig_library}/lib")
add_compile_options(-fwasm-exceptions)

add_library(exceptions OBJECT
            wasm/exceptions.cpp
            "${zig_library}/libcxxabi/src/cxa_exception.cpp"
            "${zig_library}/libcxxabi/src/cxa_personality.cpp"
            "${zig_library}/libunwind/src/Unwind-wasm.c")
set_target_properties(exceptions PROPERTIES CXX_STANDARD 23 C_STANDARD 23)
target_compile_definitions(exceptions PRIVATE _LIBCXXABI_BUILDING_LIBRARY _LIBCPP_BUILDING_LIBRARY
                                              _LIBCXXABI_HAS_NO_THREADS _LIBUNWIND_HIDE_SYMBOLS)
target_include_directories(exceptions PRIVATE "${zig_library}/libcxxabi/include" "${zig_library}/libcxx/src"
                                              "${zig_library}/libunwind/include")
set(exceptions $<TARGET_OBJECTS:exceptions>) # to be linked first, before libraries have their own
