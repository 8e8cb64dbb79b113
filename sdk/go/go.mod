module signalbox/plugin

go 1.24
