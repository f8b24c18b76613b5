package people

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/nats-vault/vault-plugin-auth-nats/claims"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

// directory is Google Workspace's Directory API, and the scopes that it takes.
var (
	directory       = url.URL{Scheme: "https", Host: "admin.googleapis.com", Path: "/admin/directory/v1"}
	directoryScopes = []string{
		"https://www.googleapis.com/auth/admin.directory.group.readonly",
		"https://www.googleapis.com/auth/admin.directory.user.readonly",
	}
)

// gsuite gets the groups of a person, and fields that the organization has added to
// its users, from Google Workspace: Google's tokens have no groups. It asks as the
// service account that it is given, in the name of an administrator.
//
// The API is asked in plain HTTP: of google.golang.org/api two requests would be
// used, and it makes the program 2.7 MB larger.
type gsuite struct {
	*api
	tokens      *googleTokens
	fetchGroups bool
	depth       int // of groups in groups
	domain      string
	schemas     []string // nil without fetch_user_info
}

func newGSuite(s *settings, c *SourceConfig) (Source, error) {
	g := &gsuite{
		api:         newAPI(c, "what Google Workspace knows of the person"),
		fetchGroups: s.flag("fetch_groups"),
		depth:       s.count("groups_recurse_max_depth"),
		domain:      s.text("domain"),
	}
	fetchUserInfo, schemas := s.flag("fetch_user_info"), s.text("user_custom_schemas")
	tokens, err := newGoogleTokens(s, g.api)
	if err != nil {
		return nil, err
	}
	g.tokens = tokens
	if !fetchUserInfo || schemas == "" {
		return g, nil
	}
	for _, schema := range strings.Split(schemas, ",") {
		schema = strings.TrimSpace(schema)
		if schema == "" {
			return nil, fault.In(providerConfig, "user_custom_schemas has an empty name")
		}
		g.schemas = append(g.schemas, schema)
	}
	return g, nil
}

// Find returns the groups that the person is in, and the fields of the schemas.
func (g *gsuite) Find(ctx context.Context, of *Subject) (*Found, error) {
	wantsGroups := g.fetchGroups && of.GroupsClaim != ""
	if !wantsGroups && len(g.schemas) == 0 {
		return &Found{}, nil
	}
	if of.User == "" {
		return nil, errors.New("the role's user_claim is not in the token, or is no string: it says whom to ask for")
	}
	l, err := g.begin()
	if err != nil {
		return nil, err
	}
	defer l.end()
	found := &Found{}
	if len(g.schemas) > 0 {
		if found.Claims, err = g.customFields(ctx, l, of.User); err != nil {
			return nil, err
		}
	}
	if wantsGroups {
		if found.Groups, err = g.groupsOf(ctx, l, of.User); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// check gets an access token: without one nothing else can be asked.
func (g *gsuite) check(ctx context.Context) error {
	if !g.fetchGroups && len(g.schemas) == 0 {
		return nil
	}
	_, err := g.tokens.get(ctx)
	g.client.CloseIdleConnections()
	return err
}

// groupsOf are the groups that the user is in, and those that these are in, as deep
// as it is configured, in the order in which they are found.
func (g *gsuite) groupsOf(ctx context.Context, l *lookup, user string) ([]string, error) {
	groups := newGroupSet()
	for members, depth := []string{user}, 0; len(members) > 0 && depth <= g.depth; depth++ {
		found := make([][]string, len(members))
		fetching, ctx := errgroup.WithContext(ctx)
		fetching.SetLimit(maxParallel)
		for i, member := range members {
			fetching.Go(func() (err error) {
				found[i], err = g.directGroupsOf(ctx, l, member)
				return err
			})
		}
		if err := fetching.Wait(); err != nil {
			return nil, err
		}
		fresh, err := groups.add(slices.Concat(found...)...)
		if err != nil {
			return nil, err
		}
		members = slices.Clone(fresh)
	}
	return groups.names, nil
}

// directGroupsOf are the groups that a user or a group is in (groups.list).
func (g *gsuite) directGroupsOf(ctx context.Context, l *lookup, member string) ([]string, error) {
	query := url.Values{"userKey": {member}, "fields": {"nextPageToken,groups(email)"}, "maxResults": {"200"}}
	if g.domain != "" {
		query.Set("domain", g.domain)
	}
	var groups []string
	for {
		var page struct {
			Groups []struct {
				Email string `json:"email"`
			} `json:"groups"`
			Next string `json:"nextPageToken"`
		}
		if err := g.get(ctx, l, directory.JoinPath("groups"), query, &page); err != nil {
			return nil, err
		}
		for _, group := range page.Groups {
			groups = append(groups, group.Email)
		}
		if len(groups) > maxGroups {
			return nil, fmt.Errorf("there are more than %d groups", maxGroups)
		}
		if page.Next == "" {
			return groups, nil
		}
		query.Set("pageToken", page.Next)
	}
}

// customFields are the fields of a user in each of the schemas (users.get).
func (g *gsuite) customFields(ctx context.Context, l *lookup, user string) (map[string]any, error) {
	if user == "." || user == ".." {
		return nil, fmt.Errorf("%q names nobody", user)
	}
	query := url.Values{"projection": {"custom"}, "customFieldMask": {strings.Join(g.schemas, ",")}, "fields": {"customSchemas"}}
	var told struct {
		CustomSchemas map[string]json.RawMessage `json:"customSchemas"`
	}
	if err := g.get(ctx, l, directory.JoinPath("users", url.PathEscape(user)), query, &told); err != nil {
		return nil, err
	}
	fields := make(map[string]any, len(told.CustomSchemas))
	for _, schema := range g.schemas {
		raw, ok := told.CustomSchemas[schema]
		if !ok {
			continue
		}
		object, err := claims.DecodeObject(string(raw))
		if err != nil {
			return nil, fmt.Errorf("the custom schema %q %w", schema, err)
		}
		fields[schema] = object
	}
	return fields, nil
}

// get asks the Directory API. Where it does not take the access token any more, the
// next login gets another one.
func (g *gsuite) get(ctx context.Context, l *lookup, u *url.URL, query url.Values, result any) error {
	token, err := g.tokens.get(ctx)
	if err != nil {
		return err
	}
	u.RawQuery = query.Encode()
	_, err = l.do(ctx, &request{method: http.MethodGet, url: u, authorization: "Bearer " + token}, result)
	var refused *statusError
	if errors.As(err, &refused) && refused.status == http.StatusUnauthorized {
		g.tokens.forget(token)
	}
	return err
}
