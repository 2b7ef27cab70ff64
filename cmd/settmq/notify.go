package main

import (
	"net"
	"os"
)

// notify tells systemd (Type=notify) what state the process is in: "READY=1", "RELOADING=1", "STOPPING=1", see
// sd_notify(3). Without a supervisor that listens it does nothing. A message that cannot be sent is dropped:
// the supervisor has a timeout for that.
func notify(state string) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := net.Dial("unixgram", path) // a path with @ in front is an abstract socket, for net as for systemd
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
