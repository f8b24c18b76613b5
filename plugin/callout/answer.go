package callout

import (
	"fmt"
	"time"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/trust"
)

// mostRefusal is how much of a refusal's text a nats-server is told, which logs it.
const mostRefusal = 1024

// Admit is the answer that lets the client in as the user of a JWT, signed with a
// key of the callout's account.
func (r *Request) Admit(signer *trust.Key, userJWT string, now time.Time) ([]byte, error) {
	return r.answer(signer, now, trust.AuthorizationResponse{JWT: userJWT})
}

// Refuse is the answer that turns the client away.
func (r *Request) Refuse(signer *trust.Key, why string, now time.Time) ([]byte, error) {
	if len(why) > mostRefusal {
		why = why[:mostRefusal] + "..."
	}
	return r.answer(signer, now, trust.AuthorizationResponse{Refusal: why})
}

// answer is sealed where the request was, by the key that it was sealed for: the
// server opens it with that.
func (r *Request) answer(signer *trust.Key, now time.Time, response trust.AuthorizationResponse) ([]byte, error) {
	response.Account, response.Server, response.User = r.account, r.Server, r.User
	token, err := response.Encode(signer, now)
	if err != nil {
		return nil, err
	}
	if r.xkey == nil {
		return []byte(token), nil
	}
	answer, err := r.xkey.seal([]byte(token), r.reply)
	if err != nil {
		return nil, fmt.Errorf("sealing the answer: %w", err)
	}
	return answer, nil
}
