// Package abi passes values between the server and a plugin with the canonical ABI of the component model, for the
// types of signalbox:plugin@1.0.0. Plugins use the public packages of this module instead.
package abi

import (
	"strings"
	"unsafe"
)

// received keeps the data that the server put into this module's memory until it is taken. Without this reference, the
// garbage collector would free it, because only the server knows its address. The first entries are nil: taken counts
// them.
var (
	received [][]byte
	taken    int
)

// returned keeps the result of a call until the next call begins. By then the server has read it.
var returned []any

//go:wasmexport cabi_realloc
func realloc(old, oldSize, align, size uint32) uint32 {
	if size == 0 {
		return align
	}
	// Allocated as words, so that any value is aligned.
	words := make([]uint64, (size+7)/8)
	buffer := unsafe.Slice((*byte)(unsafe.Pointer(&words[0])), size)
	if oldSize > 0 {
		copy(buffer, take(old, oldSize))
	}
	received = append(received, buffer)
	return address(buffer)
}

func address(buffer []byte) uint32 {
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(buffer))))
}

// take returns the data that the server put at an address, and removes it from received. Data is usually taken in the
// order in which it came, so the first entry that is left is the right one.
func take(at, length uint32) []byte {
	if length == 0 {
		return nil
	}
	for i := taken; i < len(received); i++ {
		if buffer := received[i]; address(buffer) == at {
			received[i] = received[taken]
			received[taken] = nil
			if taken++; taken == len(received) {
				received, taken = received[:0], 0
			}
			return buffer[:length]
		}
	}
	panic("the server named memory that it was not given")
}

// Text returns a string that the server passed.
func Text(at, length uint32) string {
	return string(take(at, length))
}

// Bytes returns a list of bytes that the server passed.
func Bytes(at, length uint32) []byte {
	return take(at, length)
}

// Begin is called first in each exported function. It drops the result of the previous call, which the server has read.
func Begin() {
	clear(returned)
	returned = returned[:0]
}

// Area is memory in which a result is laid out.
type Area struct {
	words []uint64
}

// NewArea allocates size bytes for a result, and keeps them until the next call.
func NewArea(size int) Area {
	words := make([]uint64, (size+7)/8)
	returned = append(returned, words)
	return Area{words}
}

// Address returns the address of the area.
func (a Area) Address() uint32 {
	return uint32(uintptr(unsafe.Pointer(&a.words[0])))
}

func (a Area) bytes() []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(&a.words[0])), len(a.words)*8)
}

// Byte writes a byte at an offset, such as the case of a variant.
func (a Area) Byte(at int, value byte) { a.bytes()[at] = value }

// Short writes two bytes at an offset.
func (a Area) Short(at int, value uint16) {
	b := a.bytes()
	b[at], b[at+1] = byte(value), byte(value>>8)
}

// Word writes four bytes at an offset.
func (a Area) Word(at int, value uint32) {
	b := a.bytes()
	b[at], b[at+1], b[at+2], b[at+3] = byte(value), byte(value>>8), byte(value>>16), byte(value>>24)
}

// Text writes the address and the length of a string, and keeps the string until the next call. The server refuses
// invalid UTF-8, such as a character that text[:40] cuts in two: U+FFFD replaces it.
func (a Area) Text(at int, text string) {
	text = strings.ToValidUTF8(text, "\uFFFD")
	returned = append(returned, text)
	a.Word(at, uint32(uintptr(unsafe.Pointer(unsafe.StringData(text)))))
	a.Word(at+4, uint32(len(text)))
}

// Bytes writes the address and the length of a list of bytes, and keeps the list until the next call.
func (a Area) Bytes(at int, list []byte) {
	returned = append(returned, list)
	a.Word(at, pointerTo(list))
	a.Word(at+4, uint32(len(list)))
}

func (a Area) byteAt(at int) byte          { return a.bytes()[at] }
func (a Area) wordAt(at int) uint32        { return uint32(a.words[at/8] >> (at % 8 * 8)) }
func (a Area) longAt(at int) uint64        { return a.words[at/8] }
func (a Area) textAt(at int) string        { return Text(a.wordAt(at), a.wordAt(at+4)) }
func (a Area) listAt(at int) []byte        { return take(a.wordAt(at), a.wordAt(at+4)) }
func pointer(text string) uint32           { return uint32(uintptr(unsafe.Pointer(unsafe.StringData(text)))) }
func pointerTo(bytes []byte) uint32        { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(bytes)))) }
func length[T string | []byte](t T) uint32 { return uint32(len(t)) }
