package responder

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/callout"
)

// A Vault is the callout in the mount, as the responder uses it.
type Vault struct {
	client  *api.Client
	mount   string
	callout string
	user    string
	login   Login
	tokens  tokens
}

// A Place says where in Vault the callout is.
type Place struct {
	Mount   string // auth/nats for one
	Callout string // its name
	User    string // name of the callout's user
}

// NewVault returns the callout at a place. The client is the responder's own from
// then on.
func NewVault(client *api.Client, place Place, login Login) *Vault {
	client.SetMaxRetries(0) // answer tries again, as long as it is of use
	return &Vault{client: client, mount: place.Mount, callout: place.Callout, user: place.User, login: login}
}

// A verdict is what the mount says about a client, or why it says nothing.
type verdict struct {
	response                  []byte // for the nats-server
	allowed                   bool
	role, account, name, user string // of one that is let in

	err   error
	final bool // asking once more would be answered so again
}

// authorize has the mount answer requests, whose verdicts are in their order.
func (v *Vault) authorize(ctx context.Context, asked []request) ([]verdict, error) {
	batch := make([]map[string]string, len(asked))
	for i, message := range asked {
		batch[i] = map[string]string{
			"request":     base64.StdEncoding.EncodeToString(message.Data),
			"server_xkey": message.Header.Get(callout.XKeyHeader),
		}
	}
	secret, err := v.write(ctx, "callout/"+v.callout+"/authorize", map[string]any{"batch_input": batch})
	if err != nil {
		return nil, err
	}
	results, _ := secret.Data["batch_results"].([]any)
	if len(results) != len(asked) {
		return nil, fmt.Errorf("the mount answers %d requests with %d results: is it of another version?", len(asked), len(results))
	}
	verdicts := make([]verdict, len(results))
	for i, result := range results {
		verdicts[i] = verdictOf(result)
	}
	return verdicts, nil
}

func verdictOf(result any) verdict {
	data, _ := result.(map[string]any)
	text := func(field string) string {
		value, _ := data[field].(string)
		return value
	}
	if why := text("error"); why != "" {
		return verdict{err: errors.New(why), final: data["status"] == json.Number(strconv.Itoa(http.StatusBadRequest))}
	}
	response, err := base64.StdEncoding.DecodeString(text("response"))
	if err != nil || len(response) == 0 {
		return verdict{err: errors.New("the mount's answer has no response")}
	}
	allowed, _ := data["allowed"].(bool)
	return verdict{
		response: response, allowed: allowed,
		role: text("role"), account: text("account"), name: text("user_name"), user: text("user_public_key"),
	}
}

// userJWT is a new JWT of the callout's user, and when it ends.
func (v *Vault) userJWT(ctx context.Context) (jwt string, expires time.Time, err error) {
	secret, err := v.retry(ctx, func() (*api.Secret, error) {
		return v.client.Logical().ReadWithContext(ctx, v.path("jwt/"+v.user))
	})
	if err != nil {
		return "", time.Time{}, err
	}
	jwt, _ = secret.Data["jwt"].(string)
	text, _ := secret.Data["expiration"].(string)
	if expires, err = time.Parse(time.RFC3339, text); err != nil || jwt == "" {
		return "", time.Time{}, fmt.Errorf("user %q has no JWT now", v.user)
	}
	return jwt, expires, nil
}

// sign has the mount sign a nats-server's nonce with the key of the callout's user.
func (v *Vault) sign(ctx context.Context, nonce []byte) ([]byte, error) {
	secret, err := v.write(ctx, "jwt/"+v.user+"/sign", map[string]any{"nonce": string(nonce)})
	if err != nil {
		return nil, err
	}
	text, _ := secret.Data["signed_nonce"].(string)
	return base64.StdEncoding.DecodeString(text)
}

func (v *Vault) path(below string) string { return v.mount + "/" + below }

func (v *Vault) write(ctx context.Context, path string, data map[string]any) (*api.Secret, error) {
	return v.retry(ctx, func() (*api.Secret, error) {
		return v.client.Logical().WriteWithContext(ctx, v.path(path), data)
	})
}

// retry makes a request, and once more with another token if Vault does not take the
// present one.
func (v *Vault) retry(ctx context.Context, do func() (*api.Secret, error)) (*api.Secret, error) {
	if err := v.ensureToken(ctx); err != nil {
		return nil, err
	}
	held := v.client.Token()
	secret, err := do()
	if isForbidden(err) {
		if changed, loginErr := v.another(ctx, held); loginErr != nil {
			return nil, errors.Join(err, loginErr)
		} else if changed {
			secret, err = do()
		}
	}
	if err == nil && (secret == nil || secret.Data == nil) {
		err = errors.New("there is nothing: is the mount, or the callout, another?")
	}
	return secret, err
}

func isForbidden(err error) bool { return isStatus(err, http.StatusForbidden) }

// isFinal reports whether the mount has said that the request is none for it, which
// it would say once more.
func isFinal(err error) bool { return isStatus(err, http.StatusBadRequest) }

func isStatus(err error, status int) bool {
	var response *api.ResponseError
	return errors.As(err, &response) && response.StatusCode == status
}
