package main

import (
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"runtime"
	"time"

	"github.com/rs/zerolog"
)

// What the profiles of waiting look at: one contended unlock in mutexSample, and waits of
// at least blockNanoseconds. Counting all of them would be seen in what is measured.
const (
	mutexSample      = 100
	blockNanoseconds = 10_000
)

// servePprof serves the runtime's profiles on a loopback address until the listener that
// it returns is closed. It also switches the profiles of mutexes and of blocking on.
func servePprof(address string, log zerolog.Logger) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	runtime.SetMutexProfileFraction(mutexSample)
	runtime.SetBlockProfileRate(blockNanoseconds)
	mux := http.NewServeMux() // not the default one: what a dependency puts there is nobody's business
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		if err := srv.Serve(l); !errors.Is(err, net.ErrClosed) {
			log.Error().Err(err).Str("address", address).Msg("listener for profiles failed")
		}
	}()
	log.Warn().Str("address", l.Addr().String()).Msg("serving profiles, which costs a little; whoever reaches this address sees inside the broker")
	return l, nil
}
