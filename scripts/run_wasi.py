"""A program of WebAssembly under wasmtime: run_wasi.py PROGRAM [ARGUMENTS…], with its exit status."""

import sys

from wasmtime import Engine, ExitTrap, Linker, Module, Store, WasiConfig

engine = Engine()
linker = Linker(engine)
linker.define_wasi()
store = Store(engine)
wasi = WasiConfig()
wasi.argv = sys.argv[1:]
wasi.inherit_stdout()
wasi.inherit_stderr()
store.set_wasi(wasi)
start = linker.instantiate(store, Module.from_file(engine, sys.argv[1])).exports(store)["_start"]
try:
    start(store)
except ExitTrap as end:
    sys.exit(end.code)
