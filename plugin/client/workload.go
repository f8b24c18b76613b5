package client

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
	"github.com/nats-io/nkeys"
)

// DefaultMount is where the auth method is mounted when a Workload does not say.
const DefaultMount = "nats"

// A Workload says who gets credentials, and where.
type Workload struct {
	// Mount is the path of the auth method's mount, below auth/. Empty: [DefaultMount].
	Mount string
	// Role is the role to log in with. Empty: the mount's default_role.
	Role string
	// Token gives the JWT that the workload's platform made for it. It is called for
	// each set of credentials. Nil for a role of type vault, see [NewFromVaultToken].
	Token TokenSource
}

// A TokenSource returns a workload's token, as fresh as it has it. White space around it
// does not matter. It must return when its context ends.
type TokenSource func(ctx context.Context) (string, error)

// StaticToken is a token that does not change. Credentials can be renewed as long as the
// token is valid.
func StaticToken(token string) TokenSource {
	return func(context.Context) (string, error) { return token, nil }
}

// TokenFile reads the token from a file, each time anew: the platform may replace it, as
// Kubernetes does with a projected service account token.
func TokenFile(path string) TokenSource {
	return func(context.Context) (string, error) {
		token, err := os.ReadFile(path) //nolint:gosec // the file that the caller names
		return string(token), err
	}
}

// TokenEnv takes the token from an environment variable.
func TokenEnv(name string) TokenSource {
	return func(context.Context) (string, error) {
		token, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("the environment variable %s is not set", name)
		}
		return token, nil
	}
}

var _ api.AuthMethod = Workload{}

// Login logs in to Vault for its token alone: it is what vault.Auth().Login takes. A NATS
// user JWT in the answer is of no use, as the key that it is for is gone; see [New].
func (w Workload) Login(ctx context.Context, vault *api.Client) (*api.Secret, error) {
	r, err := w.newRequest(ctx)
	if err != nil {
		return nil, err
	}
	defer r.key.Wipe()
	return w.login(ctx, vault, r)
}

func (w Workload) login(ctx context.Context, vault *api.Client, r *request) (*api.Secret, error) {
	if r.token == "" {
		return nil, errors.New("logging in: the Workload has no Token")
	}
	body, err := r.proven(claim{purpose: "login", mount: w.mount(), role: w.Role, token: r.token})
	if err != nil {
		return nil, err
	}
	if w.Role != "" {
		body["role"] = w.Role
	}
	secret, err := vault.Logical().WriteWithContext(ctx, w.path("login"), body)
	switch {
	case err != nil:
		return nil, fmt.Errorf("logging in at %s: %w", w.path("login"), err)
	case secret == nil || secret.Auth == nil:
		return nil, fmt.Errorf("logging in at %s: the answer has no auth", w.path("login"))
	case secret.Auth.MFARequirement != nil:
		return nil, fmt.Errorf("logging in at %s: Vault demands a second factor, which a workload does not have", w.path("login"))
	}
	return secret, nil
}

// creds asks for credentials as the holder of a Vault token.
func (w Workload) creds(ctx context.Context, vault *api.Client, role string, r *request) (*api.Secret, error) {
	path := w.path("creds/" + role)
	c := claim{purpose: "creds", mount: w.mount(), role: role, token: r.token}
	var err error
	if r.token == "" {
		if c.entity, err = entityOf(ctx, vault); err != nil {
			return nil, err
		}
	}
	body, err := r.proven(c)
	if err != nil {
		return nil, err
	}
	var secret *api.Secret
	if r.token == "" {
		// Nothing that is sent is secret, and reading is what a policy allows as a rule.
		query := map[string][]string{}
		for name, value := range body {
			query[name] = []string{fmt.Sprint(value)}
		}
		secret, err = vault.Logical().ReadWithDataWithContext(ctx, path, query)
	} else {
		secret, err = vault.Logical().WriteWithContext(ctx, path, body)
	}
	if err != nil {
		return nil, fmt.Errorf("getting credentials at %s: %w", path, err)
	}
	if secret == nil {
		return nil, fmt.Errorf("getting credentials at %s: there is nothing", path)
	}
	return secret, nil
}

// entityOf is the ID of the Vault entity whose token the client holds. It is asked for
// each time: the caller may put another token in, and an agent may do so unseen.
func entityOf(ctx context.Context, vault *api.Client) (string, error) {
	secret, err := vault.Auth().Token().LookupSelfWithContext(ctx)
	if err != nil {
		return "", fmt.Errorf("looking up the Vault token's entity: %w", err)
	}
	entity, _ := secret.Data["entity_id"].(string)
	if entity == "" {
		return "", errors.New("the Vault token has no entity, which the Workload needs that has no Token")
	}
	return entity, nil
}

// mount is the mount's path, as the mount itself knows it.
func (w Workload) mount() string {
	mount := strings.Trim(w.Mount, "/")
	if mount == "" {
		mount = DefaultMount
	}
	return "auth/" + mount + "/"
}

func (w Workload) path(below string) string { return w.mount() + below }

// A request is what one set of credentials is for: a new user key, and the workload's
// token if it has one.
type request struct {
	key    nkeys.KeyPair
	public string
	token  string
}

func (w Workload) newRequest(ctx context.Context) (*request, error) {
	token := ""
	if w.Token != nil {
		var err error
		if token, err = w.Token(ctx); err != nil {
			return nil, fmt.Errorf("getting the workload's token: %w", err)
		}
		if token = strings.TrimSpace(token); token == "" {
			return nil, errors.New("getting the workload's token: it is empty")
		}
	}
	key, err := nkeys.CreateUser()
	if err != nil {
		return nil, fmt.Errorf("making a user key: %w", err)
	}
	public, err := key.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("making a user key: %w", err)
	}
	return &request{key: key, public: public, token: token}, nil
}

// proven is what is sent: the public half of the key, the proof of possession of the
// other, and the token if there is one.
func (r *request) proven(c claim) (map[string]any, error) {
	c.user, c.time = r.public, time.Now().Unix()
	signature, err := r.key.Sign([]byte(c.text()))
	if err != nil {
		return nil, fmt.Errorf("proving possession of a user key: %w", err)
	}
	body := map[string]any{
		"user_public_key":    r.public,
		"user_key_signature": base64.StdEncoding.EncodeToString(signature),
		"user_key_time":      c.time,
	}
	if r.token != "" {
		body["jwt"] = r.token
	}
	return body, nil
}
