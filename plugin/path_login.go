package plugin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/helper/cidrutil"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/proof"
	"github.com/nats-vault/vault-plugin-auth-nats/roles"
)

func (b *backend) pathsLogin() []*framework.Path {
	return []*framework.Path{{
		Pattern:      loginPattern,
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix, OperationVerb: "login"},
		Fields: map[string]*framework.FieldSchema{
			"role": {
				Type:        framework.TypeLowerCaseString,
				Description: "Role to log in with. Default: the default_role of config.",
			},
			"jwt": {
				Type:         framework.TypeString,
				Description:  "The workload's token: a JWT that the role's issuer signed.",
				Required:     true,
				DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
			},
			"distributed_claim_access_token": distributedTokenField,
			"user_public_key":                userPublicKeyField,
			"user_key_signature":             userKeySignatureField,
			"user_key_time":                  userKeyTimeField,
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.UpdateOperation: &framework.PathOperation{
				Callback:  b.loginOrForward,
				Summary:   "Log in with a workload's token.",
				Responses: responds(http.StatusOK, "A Vault token in auth, and NATS credentials in data unless the role has credentials_on_login=false.", credentialsResponse()),
			},
			logical.AliasLookaheadOperation: &framework.PathOperation{Callback: b.lookAhead},
			logical.ResolveRoleOperation:    &framework.PathOperation{Callback: b.resolveRole},
		},
		HelpSynopsis:    "Log in with the JWT that a workload's platform gave it.",
		HelpDescription: loginHelp,
	}}
}

var distributedTokenField = &framework.FieldSchema{
	Type:         framework.TypeString,
	Description:  "An access token with which the issuer's provider_config asks for what the token refers to and does not hold, as groups beyond a number.",
	DisplayAttrs: &framework.DisplayAttributes{Sensitive: true},
}

// login answers a login, and counts it.
func (b *backend) login(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	role, resp, err := b.logIn(ctx, req, d)
	b.counted(byLogin, role, err)
	if err != nil {
		return answer(err)
	}
	return resp, nil
}

// logIn is the whole of it: role, verify, bind, issue. The role is that of a login that
// is refused, too.
func (b *backend) logIn(ctx context.Context, req *logical.Request, d *framework.FieldData) (*role, *logical.Response, error) {
	now := time.Now()
	role, err := b.loginRole(ctx, req.Storage, d)
	if err != nil {
		return nil, nil, err
	}
	bound, err := b.identifyLogin(ctx, req, role, d, now)
	if err != nil {
		return role, nil, err
	}
	resp, err := b.grant(ctx, req, d, role, bound, evidence{by: textOf(d, "jwt"), role: textOf(d, "role")}, now)
	return role, resp, err
}

// grant is the last step of every login: a Vault token, and NATS credentials beside
// it unless the role gives them elsewhere.
func (b *backend) grant(ctx context.Context, req *logical.Request, d *framework.FieldData, role *role, bound *roles.Bound, who evidence, now time.Time) (*logical.Response, error) {
	auth := role.auth(bound)
	if !role.entry.CredentialsOnLogin {
		return &logical.Response{Auth: auth}, nil
	}

	key, err := userKeyOf(req, d, role, proof.Login, who, now)
	if err != nil {
		return nil, err
	}
	creds, err := b.issue(ctx, req.Storage, role, bound, key, now)
	if err != nil {
		return nil, err
	}
	auth.Metadata["user_public_key"] = creds.userPublicKey
	return &logical.Response{Auth: auth, Data: creds.response(), Warnings: creds.warnings()}, nil
}

// loginRole is the role that the request names, or the default one.
func (b *backend) loginRole(ctx context.Context, s logical.Storage, d *framework.FieldData) (*role, error) {
	name, err := b.loginRoleName(ctx, s, d)
	if err != nil {
		return nil, err
	}
	return b.roleOfIssuer(ctx, s, name)
}

func (b *backend) loginRoleName(ctx context.Context, s logical.Storage, d *framework.FieldData) (string, error) {
	name := strings.ToLower(textOf(d, "role"))
	if name == "" {
		set, err := b.readSettings(ctx, s)
		if err != nil {
			return "", err
		}
		name = set.DefaultRole
	}
	if name == "" {
		return "", fault.In("role", "is missing, and the mount has no default_role")
	}
	return name, nil
}

// namedRole is the role of that name, of whatever type.
func (b *backend) namedRole(ctx context.Context, s logical.Storage, name string) (*role, error) {
	if err := fault.CheckLength("role", name); err != nil {
		return nil, err // before storage is asked, and without showing all of it again
	}
	role, err := b.role(ctx, s, name)
	if err != nil {
		return nil, err
	}
	if role == nil {
		return nil, errNoRole(name)
	}
	return role, nil
}

// roleOfIssuer is the role of that name, which takes tokens.
func (b *backend) roleOfIssuer(ctx context.Context, s logical.Storage, name string) (*role, error) {
	role, err := b.namedRole(ctx, s, name)
	if err != nil {
		return nil, err
	}
	switch role.entry.RoleType {
	case roles.TypeVault:
		return nil, fault.In("role", "%q is of type vault: it serves creds/%s, not login", name, name)
	case roles.TypeOIDC:
		return nil, fault.In("role", "%q is of type oidc: people log in with it, through a browser and oidc/auth_url, and it takes no jwt", name)
	}
	return role, nil
}

func errNoRole(name string) error { return fault.New("role %q could not be found", name) }

// identifyLogin is identify for a login. What it refuses has the status that
// Vault's own method for the kind of the role's issuer has for it: 403 in the
// Kubernetes method since its version 0.15, 400 in the JWT method.
func (b *backend) identifyLogin(ctx context.Context, req *logical.Request, role *role, d *framework.FieldData, now time.Time) (*roles.Bound, error) {
	token := textOf(d, "jwt")
	if token == "" {
		return nil, fault.In("jwt", "is missing")
	}
	bound, err := b.identify(ctx, req, role, token, textOf(d, "distributed_claim_access_token"), now)
	var refusal *fault.Error
	if role.entry.RoleType == roles.TypeKubernetes && errors.As(err, &refusal) {
		return nil, forbidden{err}
	}
	return bound, err
}

// forbidden is a refusal with status 403.
type forbidden struct{ error }

func (e forbidden) Unwrap() error { return e.error }

// identify verifies the workload's token with the role's issuer, and only with
// it, and holds what it says against the role's bindings.
func (b *backend) identify(ctx context.Context, req *logical.Request, role *role, token, accessToken string, now time.Time) (*roles.Bound, error) {
	if err := checkAddress(req, role); err != nil {
		return nil, err
	}
	identity, err := b.verify(ctx, req.Storage, role, token, accessToken, now)
	if err != nil {
		return nil, err
	}
	return role.bind(identity, now)
}

func (r *role) bind(identity *claims.Identity, now time.Time) (*roles.Bound, error) {
	bound, err := r.compiled.Bind(identity.Profile(), now)
	if err != nil {
		return nil, fault.New("error validating claims: %s", err)
	}
	return bound, nil
}

// checkAddress refuses callers from outside of the role's token_bound_cidrs.
func checkAddress(req *logical.Request, role *role) error {
	cidrs := role.entry.TokenParams.TokenBoundCIDRs
	if len(cidrs) > 0 && (req.Connection == nil || !cidrutil.RemoteAddrIsOk(req.Connection.RemoteAddr, cidrs)) {
		return logical.ErrPermissionDenied
	}
	return nil
}

// verify has the role's issuer say who the token's bearer is. The access token is for
// its provider_config, and may be empty.
func (b *backend) verify(ctx context.Context, s logical.Storage, role *role, token, accessToken string, now time.Time) (*claims.Identity, error) {
	issuer, err := b.issuer(ctx, s, role.entry.Issuer)
	if err != nil {
		return nil, err
	}
	if issuer == nil {
		return nil, fmt.Errorf("role %q names issuer %q, which is not configured", role.name, role.entry.Issuer)
	}
	began := time.Now()
	identity, err := issuer.Verify(ctx, token, now, role.compiled.Expected())
	issuer.verified.Observe(time.Since(began).Seconds())
	switch {
	case errors.Is(err, claims.ErrUnavailable):
		return nil, b.unavailable("error validating token", err)
	case err != nil:
		return nil, tokenError{fault.New("error validating token: %s", err)}
	}
	return b.enrich(ctx, issuer, role, identity, accessToken, true)
}

// unavailable tells the operator what the caller is not told: what the issuer's host
// answered.
func (b *backend) unavailable(doing string, err error) error {
	var unavailable *claims.UnavailableError
	if errors.As(err, &unavailable) {
		b.Logger().Warn("a token could not be verified", "issuer", unavailable.Issuer, "what", unavailable.What, "error", unavailable.Err)
	}
	return logical.CodedError(http.StatusServiceUnavailable, fmt.Sprintf("%s: %s", doing, err))
}

// auth is the Vault token's part of the answer. The alias's metadata holds
// nothing that differs from login to login: Vault stores it whenever it changes.
func (r *role) auth(bound *roles.Bound) *logical.Auth {
	metadata := make(map[string]string, len(bound.Metadata)+3)
	maps.Copy(metadata, bound.Metadata)
	metadata["role"] = r.name
	metadata["account"] = r.entry.Account

	aliasMetadata := make(map[string]string, len(bound.Metadata)+len(bound.AliasMetadata)+1)
	maps.Copy(aliasMetadata, bound.AliasMetadata)
	maps.Copy(aliasMetadata, bound.Metadata)
	if r.entry.RoleType != roles.TypeKubernetes {
		aliasMetadata["role"] = r.name // as in the JWT method, and not in the Kubernetes method
	}

	auth := &logical.Auth{
		DisplayName: displayName(bound),
		Alias:       &logical.Alias{Name: bound.Alias, Metadata: aliasMetadata},
		InternalData: map[string]any{
			"role":   r.name,
			"issuer": r.entry.Issuer,
		},
		Metadata: metadata,
	}
	for _, group := range bound.Groups {
		auth.GroupAliases = append(auth.GroupAliases, &logical.Alias{Name: group})
	}
	r.entry.PopulateTokenAuth(auth)
	auth.Policies = bound.Policies
	return auth
}

// displayName is the alias, or for a service account, whose alias may be its
// UID, its namespace and name as in the Kubernetes method.
func displayName(bound *roles.Bound) string {
	if name := bound.Metadata["service_account_name"]; name != "" {
		return bound.Metadata["service_account_namespace"] + "-" + name
	}
	return bound.Alias
}

// renewLogin extends a token only while the role that gave it is there and
// still takes tokens of the issuer that it was given for.
func (b *backend) renewLogin(ctx context.Context, req *logical.Request, _ *framework.FieldData) (*logical.Response, error) {
	if req.Auth == nil {
		return nil, errors.New("the request to renew a token has none")
	}
	name, _ := req.Auth.InternalData["role"].(string)
	issuer, _ := req.Auth.InternalData["issuer"].(string)
	role, err := b.role(ctx, req.Storage, name)
	if err != nil {
		return nil, err
	}
	if role == nil {
		return logical.ErrorResponse("role %q, which this token was given for, does not exist any more", name), nil
	}
	if role.entry.Issuer != issuer {
		return logical.ErrorResponse("role %q does not take tokens of issuer %q any more", name, issuer), nil
	}
	auth := *req.Auth
	auth.TTL = role.entry.TokenTTL
	auth.MaxTTL = role.entry.TokenMaxTTL
	auth.Period = role.entry.TokenPeriod
	return &logical.Response{Auth: &auth}, nil
}

// lookAhead tells Vault, before a login, which alias it is for.
func (b *backend) lookAhead(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	role, err := b.loginRole(ctx, req.Storage, d)
	if err != nil {
		return answer(err)
	}
	bound, err := b.identifyLogin(ctx, req, role, d, time.Now())
	if err != nil {
		return answer(err)
	}
	return &logical.Response{Auth: &logical.Auth{Alias: &logical.Alias{Name: bound.Alias}}}, nil
}

// resolveRole tells Vault which role a login is for; quotas can be set by role. Vault
// asks this path for that of a person too, when they come to oidc/auth_url.
func (b *backend) resolveRole(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	name, err := b.loginRoleName(ctx, req.Storage, d)
	if err != nil {
		return answer(err)
	}
	role, err := b.namedRole(ctx, req.Storage, name)
	if err == nil && role.entry.RoleType != roles.TypeOIDC {
		role, err = b.roleOfIssuer(ctx, req.Storage, name)
	}
	if err != nil {
		return answer(err)
	}
	return logical.ResolveRoleResponse(role.name)
}

const loginHelp = `
Verifies the token with the role's issuer, holds it against the role's bindings,
and answers with a Vault token (auth) and with NATS credentials (data): a user
JWT, and the creds file that holds it with the user's key. A workload that brings
its own key as user_public_key gets the JWT only.

The NATS user JWT ends with the role's user_ttl, and never later than the token
or the mount allow.

With login MFA in two phases Vault hands out data before the second factor is
checked. Where that is in use, set credentials_on_login=false on the role and get
the credentials at creds/:role.
`
