package responder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// A Login says how the responder gets its Vault token. Of its ways one is used, the
// first that is given; without any, the client's own token is, or that which a Vault
// Agent adds to what goes through it.
type Login struct {
	// TokenFile has a Vault token, such as the sink of a Vault Agent. It is read again
	// when Vault does not take the token any more.
	TokenFile string

	// JWTFile has the responder's own workload token, such as a projected service
	// account token, with which it logs in to the mount as any workload does. It is read
	// at each login.
	JWTFile string
	Role    string // of that login; empty for the mount's default_role
}

// tokens is the state of a Vault's token.
type tokens struct {
	mu      sync.Mutex // held while another token is got
	got     bool
	renewAt time.Time // the zero time: the token is not ours to replace in time
	ends    time.Time // the zero time: not known
	fault   error     // of the last login
}

// ensureToken gets the first token.
func (v *Vault) ensureToken(ctx context.Context) error {
	v.tokens.mu.Lock()
	defer v.tokens.mu.Unlock()
	if v.tokens.got {
		return nil
	}
	return v.getToken(ctx)
}

// another replaces a token that Vault did not take, unless somebody has already. It
// reports whether there is another one now.
func (v *Vault) another(ctx context.Context, held string) (bool, error) {
	v.tokens.mu.Lock()
	defer v.tokens.mu.Unlock()
	if v.client.Token() == held {
		if err := v.getToken(ctx); err != nil {
			return false, err
		}
	}
	return v.client.Token() != held, nil
}

// getToken gets a token. The caller holds the lock.
func (v *Vault) getToken(ctx context.Context) error {
	err := v.login.getToken(ctx, v)
	v.tokens.fault = err
	v.tokens.got = err == nil
	return err
}

func (l Login) getToken(ctx context.Context, v *Vault) error {
	switch {
	case l.TokenFile != "":
		token, err := readFile(l.TokenFile)
		if err == nil {
			v.client.SetToken(token)
		}
		return err
	case l.JWTFile != "":
		return l.logIn(ctx, v)
	}
	return nil
}

func (l Login) logIn(ctx context.Context, v *Vault) error {
	jwt, err := readFile(l.JWTFile)
	if err != nil {
		return err
	}
	client, err := v.client.CloneWithHeaders()
	if err != nil {
		return err
	}
	client.ClearToken()
	data := map[string]any{"jwt": jwt}
	if l.Role != "" {
		data["role"] = l.Role
	}
	secret, err := client.Logical().WriteWithContext(ctx, v.path("login"), data)
	if err != nil {
		return fmt.Errorf("log in to Vault: %w", err)
	}
	if secret == nil || secret.Auth == nil {
		return errors.New("log in to Vault: the answer has no token")
	}
	life := time.Duration(secret.Auth.LeaseDuration) * time.Second
	v.client.SetToken(secret.Auth.ClientToken)
	v.tokens.renewAt, v.tokens.ends = time.Now().Add(life*2/3), time.Now().Add(life)
	return nil
}

func readFile(path string) (string, error) {
	text, err := os.ReadFile(path) //nolint:gosec // whoever runs the responder names it
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return token, nil
}

// keepLoggedIn logs in anew before the token ends, until the context ends.
func (v *Vault) keepLoggedIn(ctx context.Context, log *slog.Logger) {
	if v.login.TokenFile != "" || v.login.JWTFile == "" {
		return // others renew it
	}
	for ctx.Err() == nil {
		v.tokens.mu.Lock()
		var err error
		if !v.tokens.got || !time.Now().Before(v.tokens.renewAt) {
			bounded, cancel := context.WithTimeout(ctx, 10*time.Second)
			err = v.getToken(bounded)
			cancel()
		}
		until := time.Until(v.tokens.renewAt)
		v.tokens.mu.Unlock()
		if err != nil {
			log.Warn("no Vault token yet", "error", err)
			until = time.Second
		}
		timer := time.NewTimer(min(max(until, 100*time.Millisecond), time.Minute))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// healthy says why Vault would not be asked, as far as is known without asking.
func (v *Vault) healthy() error {
	v.tokens.mu.Lock()
	defer v.tokens.mu.Unlock()
	switch {
	case v.tokens.fault != nil:
		return fmt.Errorf("no Vault token: %w", v.tokens.fault)
	case !v.tokens.got:
		return errors.New("no Vault token yet")
	case !v.tokens.ends.IsZero() && time.Now().After(v.tokens.ends):
		return errors.New("the Vault token has ended")
	}
	return nil
}
