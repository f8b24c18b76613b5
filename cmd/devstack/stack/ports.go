package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
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
	portsTaken = map[int]*os.File{} // with the lock of each, which goes with the process
)

// FreePort returns a loopback port on which nothing listens and that was not handed out
// before, by this process or by another of this user that runs still. A server that is
// down keeps it.
func FreePort() (int, error) {
	portsMutex.Lock()
	defer portsMutex.Unlock()
	for range 200 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return 0, err
		}
		claim, err := claimPort(port)
		if err != nil {
			return 0, err
		}
		if claim != nil {
			portsTaken[port] = claim
			return port, nil
		}
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
