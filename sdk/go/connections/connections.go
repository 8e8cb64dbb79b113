// Package connections is for plugins that follow connections as they come and go.
package connections

import (
	"signalbox/plugin"
	"signalbox/plugin/internal/abi"
)

var (
	connected    func(plugin.Client) ([]plugin.Action, error)
	disconnected func(plugin.Client, plugin.Disconnection) []plugin.Action
)

// Register says what happens when a connection comes, which plugin.Reject refuses, and when it has gone.
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
