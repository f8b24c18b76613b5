package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// requestTimeout bounds one request of the load generator.
const requestTimeout = 30 * time.Second

// A conn is a client's connection to Vault. It shares the machine with what it
// measures, so it does no more than HTTP asks for: no pool, no goroutine, requests
// that are made beforehand.
type conn struct {
	net    net.Conn
	reader *bufio.Reader
	body   bytes.Buffer
}

// A target is a server that is asked.
type target struct {
	addr string      // as in a URL
	tls  *tls.Config // of one that serves TLS
}

func dial(to target) (*conn, error) {
	c, err := net.Dial("tcp", strings.TrimPrefix(strings.TrimPrefix(to.addr, "http://"), "https://"))
	if err != nil {
		return nil, err
	}
	if to.tls != nil {
		config := to.tls.Clone()
		config.ServerName = "localhost"
		c = tls.Client(c, config)
	}
	return &conn{net: c, reader: bufio.NewReaderSize(c, 16<<10)}, nil
}

func (c *conn) close() error { return c.net.Close() }

// request makes the text of a request. The body is JSON, if there is one.
func request(method, path, token string, body any) ([]byte, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
	}
	header := fmt.Sprintf("%s /v1/%s HTTP/1.1\r\nHost: vault\r\nX-Vault-Request: true\r\nContent-Length: %d\r\n", method, path, len(text))
	if token != "" {
		header += "X-Vault-Token: " + token + "\r\n"
	}
	return append([]byte(header+"\r\n"), text...), nil
}

// do sends a request and returns the answer's body, which is valid until the next one.
func (c *conn) do(text []byte) ([]byte, error) {
	if err := c.net.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return nil, err
	}
	if _, err := c.net.Write(text); err != nil {
		return nil, err
	}
	response, err := http.ReadResponse(c.reader, nil)
	if err != nil {
		return nil, err
	}
	c.body.Reset()
	_, err = io.Copy(&c.body, response.Body)
	if err := response.Body.Close(); err != nil {
		return nil, err
	}
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("status %s: %s", response.Status, bytes.TrimSpace(c.body.Bytes()))
	}
	return c.body.Bytes(), nil
}

// clientToken finds the Vault token in the answer to a login.
func clientToken(body []byte) (string, error) {
	_, after, found := bytes.Cut(body, []byte(`"client_token":"`))
	token, _, ended := bytes.Cut(after, []byte(`"`))
	if !found || !ended || len(token) == 0 {
		return "", fmt.Errorf("the answer has no token: %s", body)
	}
	return string(token), nil
}

// A task is what a client does again and again: one login, of whatever steps.
type task func(*conn) error

// A burst is what clients did in a while.
type burst struct {
	rate      float64 // tasks a second, of all clients together
	latencies []float64
	done      int // tasks, those that do not count too
}

// hammer has each client do its task again and again, after a first part that does
// not count, for so long. Before that each has done it once: who is new to Vault costs
// it more.
func hammer(ctx context.Context, to target, tasks []task, length time.Duration) (*burst, error) {
	var wait sync.WaitGroup
	latencies := make([][]float64, len(tasks))
	done := make([]int, len(tasks))
	failures := make([]error, len(tasks))
	for i, task := range tasks {
		wait.Go(func() { failures[i] = once(to, task) })
	}
	wait.Wait()
	if err := errors.Join(failures...); err != nil {
		return nil, err
	}
	begin := time.Now().Add(length / 8)
	end := begin.Add(length)
	for i, task := range tasks {
		wait.Go(func() { latencies[i], done[i], failures[i] = repeat(ctx, to, task, begin, end) })
	}
	wait.Wait()
	took := time.Since(begin)
	all := &burst{}
	for i := range tasks {
		if failures[i] != nil {
			return nil, failures[i]
		}
		all.latencies = append(all.latencies, latencies[i]...)
		all.done += done[i] + 1
	}
	if len(all.latencies) == 0 {
		return nil, fmt.Errorf("nothing was done in %s", took)
	}
	all.rate = float64(len(all.latencies)) / took.Seconds()
	return all, nil
}

// repeat does a task until the end. It returns the latencies of those that began when
// they counted, and how many were done.
func repeat(ctx context.Context, to target, task task, begin, end time.Time) (latencies []float64, done int, err error) {
	c, err := dial(to)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	for ; ; done++ {
		started := time.Now()
		if started.After(end) || ctx.Err() != nil {
			return latencies, done, ctx.Err()
		}
		if err := task(c); err != nil {
			return nil, done, err
		}
		if started.After(begin) {
			latencies = append(latencies, time.Since(started).Seconds())
		}
	}
}

// once does a task on a connection of its own.
func once(to target, task task) (err error) {
	c, err := dial(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	return task(c)
}
