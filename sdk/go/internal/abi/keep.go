package abi

import "runtime"

// keepAlive keeps values until the server has read them. The compiler does not see that access.
func keepAlive(values ...any) { runtime.KeepAlive(values) }
