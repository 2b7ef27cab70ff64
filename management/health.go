package management

import "net/http"

// metrics answers a scrape on the API's port, where one has to log in.
func metrics(r *request) (any, error) {
	if r.server.o.Metrics == nil {
		return nil, errNotFound
	}
	return &raw{func(w http.ResponseWriter) { r.server.o.Metrics.ServeHTTP(w, r.Request) }}, nil
}

// healthLive says that the process answers. No password, no details.
func healthLive(*request) (any, error) { return object{{"status", "ok"}}, nil }

// healthReady says whether clients are welcome: the broker is up, is not about to stop, and holds no publishers back.
func healthReady(r *request) (any, error) {
	if r.server.stopping.Load() || r.broker.Alarms().Blocked() {
		return &reply{status: http.StatusServiceUnavailable, body: object{{"status", "failed"}}}, nil
	}
	return object{{"status", "ok"}}, nil
}
