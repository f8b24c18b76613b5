package stack

import (
	"context"
	"errors"
	"os"
	"path/filepath"
)

// Prometheus is a running Prometheus on loopback.
type Prometheus struct {
	// URL is where its API is.
	URL string
	// Dir is the folder of the server, with its configuration and its data.
	Dir string

	process *process
}

// StartPrometheus starts a Prometheus with files of its configuration, of which one is
// prometheus.yaml, and returns when it is ready. The files may name each other.
func StartPrometheus(ctx context.Context, files map[string][]byte) (p *Prometheus, err error) {
	bin, err := PrometheusTool.Path(ctx)
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	p = &Prometheus{URL: "http://" + loopback(port)}
	if p.Dir, err = makeDir("prometheus"); err != nil {
		return p, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Close())
		}
	}()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(p.Dir, name), text, 0o600); err != nil {
			return p, err
		}
	}
	p.process, err = startProcess(p.Dir, "prometheus", nil, bin,
		"--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--web.listen-address="+loopback(port), "--log.level=warn")
	if err != nil {
		return p, err
	}
	return p, p.process.ready(ctx, func() error {
		response, err := get(ctx, p.URL+"/-/ready")
		if err != nil {
			return err
		}
		return response.Body.Close()
	})
}

// Close ends the server and removes its folder.
func (p *Prometheus) Close() error {
	p.process.stop()
	return os.RemoveAll(p.Dir)
}

// Log is what the server has written.
func (p *Prometheus) Log() string { return p.process.output() }
