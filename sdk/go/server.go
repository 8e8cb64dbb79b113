package plugin

import (
	"fmt"

	"signalbox/plugin/internal/abi"
)

// Level is how loud a line of the log is.
type Level uint32

// The levels.
const (
	Debug Level = iota
	Info
	Warn
	Error
)

// Log writes a line to the server's log.
func Log(level Level, format string, args ...any) {
	abi.Log(uint32(level), fmt.Sprintf(format, args...))
}

// CurrentClient is the connection that the call is about; false where there is none.
func CurrentClient() (Client, bool) { return abi.CurrentClient() }

// Node is the node that runs this instance.
func Node() string { return abi.Node() }

// Now is the time in milliseconds since 1970. Go's own clock only counts here.
func Now() uint64 { return abi.Now() }

// Random is uniform and unpredictable.
func Random() uint32 { return abi.Random() }

// StoreError is why an operation of the store was not done.
type StoreError abi.Code

// The errors of the store.
const (
	TooLarge StoreError = iota
	NotANumber
	TooManyCalls
	Unavailable
)

func (e StoreError) Error() string {
	return "store: " + [...]string{"too large", "not a number", "too many calls", "unavailable"}[e]
}

// Rejection is what the client is told where this error is returned.
func (e StoreError) Rejection() *Rejection {
	return [...]*Rejection{
		{Code: "store_full", Reason: "there is no room to keep this"},
		{Code: "store_value", Reason: "what is kept is not a number"},
		{Code: "store_calls", Reason: "this needs too many calls to the store"},
		{Code: "store_unavailable", Reason: "the store does not answer; try again"},
	}[e]
}

// Get reads a value; false where there is none.
func Get(key string) ([]byte, bool, error) {
	value, found, code := abi.Get(key)
	return value, found, storeError(code)
}

// Set writes a value, and forgets it after ttlSeconds; 0 keeps it for good.
func Set(key string, value []byte, ttlSeconds uint32) error {
	return storeError(abi.Set(key, value, ttlSeconds))
}

// Remove forgets a value.
func Remove(key string) error { return storeError(abi.Remove(key)) }

// Increment adds by and returns the sum; a new value takes ttlSeconds, 0 is for good.
func Increment(key string, by int32, ttlSeconds uint32) (int64, error) {
	sum, code := abi.Increment(key, by, ttlSeconds)
	return sum, storeError(code)
}

// CompareAndSwap sets where the value still is expected, nil for none. False: it is another one.
func CompareAndSwap(key string, expected, value []byte, ttlSeconds uint32) (bool, error) {
	swapped, code := abi.CompareAndSwap(key, expected, value, ttlSeconds)
	return swapped, storeError(code)
}

// Count adds to a metric of the plugin.
func Count(name string, by uint32) { abi.Count(name, by) }

// Observe adds a value to a distribution of the plugin.
func Observe(name string, value float64) { abi.Observe(name, value) }

func storeError(code abi.Code) error {
	if code < 0 {
		return nil
	}
	return StoreError(code)
}
