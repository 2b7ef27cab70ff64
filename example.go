// Package settmq holds the files that are shipped inside the program. The broker itself is in the
// folders below: start with cmd/settmq and broker.
package settmq

import _ "embed"

// ExampleConfig is config.example.yaml: every setting with its default and what it does.
//
//go:embed config.example.yaml
var ExampleConfig []byte
