package main

import (
	"fmt"
	"os"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/broker"
	"github.com/settmq/settmq/broker/definitions"
)

// importDefinitions takes a RabbitMQ definitions file over at start.
func importDefinitions(b *broker.Broker, name string, log zerolog.Logger) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("load_definitions: %w", err)
	}
	defer f.Close()
	d, err := definitions.Parse(f, definitions.Options{})
	if err != nil {
		return fmt.Errorf("load_definitions: %s: %w", name, err)
	}
	r, err := b.Import(d)
	if err != nil {
		return fmt.Errorf("load_definitions: %s: %w", name, err)
	}
	log.Info().Str("file", name).Int("vhosts", r.VHosts).Int("users", r.Users).Int("permissions", r.Permissions).
		Int("exchanges", r.Exchanges).Int("queues", r.Queues).Int("bindings", r.Bindings).Int("present", r.Present).
		Int("policies", r.Policies).Int("parameters", r.Parameters).Msg("definitions imported")
	return nil
}
