// Package connections is for plugins that track connections as they open and close.
package connections

import (
	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

var (
	connected    func(plugin.Client) ([]plugin.Action, error)
	disconnected func(plugin.Client, plugin.Disconnection) []plugin.Action
)

// Register sets the functions to call before a connection is admitted, which may refuse it with plugin.Reject, and
// after it has closed.
func Register(come func(plugin.Client) ([]plugin.Action, error), gone func(plugin.Client, plugin.Disconnection) []plugin.Action) {
	connected, disconnected = come, gone
}

//go:wasmexport signalbox:plugin/connections@1.0.0#connected
func exportConnected(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen uint32, connectedAt uint64) uint32 {
	defer abi.Guard()
	client := abi.ClientOf(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen, connectedAt)
	return abi.Actions(connected(client))
}

//go:wasmexport signalbox:plugin/connections@1.0.0#disconnected
func exportDisconnected(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen uint32, connectedAt uint64,
	code, reasonAt, reasonLen uint32) uint32 {
	defer abi.Guard()
	client := abi.ClientOf(connAt, connLen, userAt, userLen, claimsAt, claimsLen, addrAt, addrLen, connectedAt)
	how := plugin.Disconnection{Code: uint16(code), Reason: abi.Text(reasonAt, reasonLen)}
	return abi.OnlyActions(disconnected(client, how))
}
