package main

import (
	"os"
	"slices"

	"github.com/rs/zerolog"

	"github.com/settmq/settmq/config"
)

// reloader reads the configuration again on SIGHUP.
type reloader struct {
	file string // "" for none
	cfg  *config.Config
	log  zerolog.Logger
}

// reloadable are the settings that a running broker takes over. Certificates are read again by themselves.
var reloadable = []string{"log.level"}

// reload takes over what can change in a running broker, and says what waits for the next start. A
// configuration that cannot be used changes nothing.
func (r *reloader) reload() {
	notify("RELOADING=1")
	defer notify("READY=1")
	cfg, err := config.Load(r.file, os.Environ())
	if err != nil {
		r.log.Error().Err(err).Msg("the configuration cannot be used: nothing was reloaded")
		return
	}
	var waiting []string
	for _, key := range config.Differences(r.cfg, cfg) {
		if !slices.Contains(reloadable, key) {
			waiting = append(waiting, key)
		}
	}
	r.cfg.Log.Level = cfg.Log.Level
	setLogLevel(cfg.Log.Level)
	if len(waiting) > 0 {
		r.log.Warn().Strs("settings", waiting).Msg("changed settings that count from the next start on")
	}
	r.log.WithLevel(zerolog.InfoLevel).Str("level", cfg.Log.Level).Msg("configuration reloaded")
}

// setLogLevel changes the level of all loggers, one of debug, info, warn, error.
func setLogLevel(name string) {
	level, err := zerolog.ParseLevel(name)
	if err != nil {
		level = zerolog.InfoLevel // validated before
	}
	zerolog.SetGlobalLevel(level)
}
