package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// The ports that servers get. They lie below those that Linux and macOS give to
// outgoing connections, so that none of these takes a port between the moment it is
// found free and the moment its server listens.
const (
	firstPort = 20000
	lastPort  = 32000
)

var (
	portsMutex sync.Mutex
	portsTaken = map[int]bool{}
)

// FreePort returns a loopback port on which nothing listens and that this process
// did not hand out before. A server that is down keeps it.
func FreePort() (int, error) {
	portsMutex.Lock()
	defer portsMutex.Unlock()
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if portsTaken[port] {
			continue
		}
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return 0, err
		}
		portsTaken[port] = true
		return port, nil
	}
	return 0, errors.New("no free port between " + strconv.Itoa(firstPort) + " and " + strconv.Itoa(lastPort))
}

func freePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		port, err := FreePort()
		if err != nil {
			return nil, err
		}
		ports[i] = port
	}
	return ports, nil
}

func loopback(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
