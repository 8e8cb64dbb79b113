module presence

go 1.24

require signalbox/plugin v1.0.0

replace signalbox/plugin => ../../sdk/go
