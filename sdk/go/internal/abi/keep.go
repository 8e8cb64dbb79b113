package abi

import "runtime"

// keepAlive keeps values until the server has read them, which the compiler does not see.
func keepAlive(values ...any) { runtime.KeepAlive(values) }
