package plugin

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"github.com/hashicorp/vault/sdk/framework"
	"github.com/hashicorp/vault/sdk/logical"

	"github.com/nats-vault/vault-plugin-auth-nats/plugin/delivery"
	"github.com/nats-vault/vault-plugin-auth-nats/plugin/fault"
)

const (
	// syncWait is how long a write of sync waits for the comparison to end, with
	// some way to go to Vault's own limit of 90 seconds.
	syncWait = 60 * time.Second

	// A page of accounts has syncPage of them, and syncMaxPage at most.
	syncPage    = 100
	syncMaxPage = 1000
)

func (b *backend) pathsSync() []*framework.Path {
	return []*framework.Path{{
		Pattern:      "sync$",
		DisplayAttrs: &framework.DisplayAttributes{OperationPrefix: operationPrefix},
		Fields: map[string]*framework.FieldSchema{
			"prune": {
				Type:        framework.TypeBool,
				Description: `On write: remove the accounts of the operator that servers hold and the mount does not know.`,
			},
			"account": {
				Type:        framework.TypeString,
				Query:       true,
				Description: `On read: name of the one account to show.`,
			},
			"pending": {
				Type:        framework.TypeBool,
				Query:       true,
				Description: `On read: show only the accounts that are not delivered.`,
			},
			"after": {
				Type:        framework.TypeString,
				Query:       true,
				Description: `On read: public key of the account after which to begin, as "next" has it.`,
			},
			"limit": {
				Type:        framework.TypeInt,
				Query:       true,
				Default:     syncPage,
				Description: `On read: how many accounts to show, up to 1000. Default: 100.`,
			},
		},
		Operations: map[logical.Operation]framework.OperationHandler{
			logical.ReadOperation: &framework.PathOperation{
				Callback:                    b.readSync,
				Summary:                     "Read the state of delivery.",
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "read", OperationSuffix: "delivery"},
				Responses: responds(http.StatusOK, "The state of delivery.", map[string]*framework.FieldSchema{
					"connected":     {Type: framework.TypeBool, Required: true, Description: "Whether there is a connection to NATS, where one is needed."},
					"error":         {Type: framework.TypeString, Required: true, Description: "Why there is no connection."},
					"servers":       {Type: framework.TypeSlice, Required: true, Description: "The nats-servers that answer, and those that did and do not now."},
					"pending":       {Type: framework.TypeInt, Required: true, Description: "How many accounts are not delivered."},
					"pending_since": {Type: framework.TypeTime, Description: "Since when the one is not that waits the longest; absent while none waits."},
					"accounts":      {Type: framework.TypeSlice, Required: true, Description: "Accounts by public key, with name, wanted and delivered version, number of servers that agreed, last error, its time, and time of the next attempt; how many revocations there are and how many fit, if there are any."},
					"next":          {Type: framework.TypeString, Required: true, Description: `What to give as "after" for the next page; empty on the last.`},
					"last_sync":     {Type: framework.TypeMap, Required: true, Description: "Report of the last comparison; empty before the first."},
				}),
			},
			logical.UpdateOperation: &framework.PathOperation{
				Callback:                    b.writeSync,
				Summary:                     "Compare the servers with the mount and deliver what differs.",
				ForwardPerformanceStandby:   true,
				ForwardPerformanceSecondary: true,
				DisplayAttrs:                &framework.DisplayAttributes{OperationVerb: "reconcile", OperationSuffix: "delivery"},
				Responses: responds(http.StatusOK, "What was found and done. Empty if it goes on in the background.", map[string]*framework.FieldSchema{
					"started":   {Type: framework.TypeString, Description: "When the comparison began (RFC 3339)."},
					"seconds":   {Type: framework.TypeFloat, Description: "How long it took."},
					"accounts":  {Type: framework.TypeInt, Description: "How many accounts were compared."},
					"delivered": {Type: framework.TypeInt, Description: "On how many of them the servers agree."},
					"failed":    {Type: framework.TypeInt, Description: "How many could not be delivered; they are tried again."},
					"failures":  {Type: framework.TypeSlice, Description: "The first of these, with their errors."},
					"unknown":   {Type: framework.TypeSlice, Description: "Accounts that servers with a full resolver hold, the operator signed and the mount does not know, and whether they were pruned."},
					"foreign":   {Type: framework.TypeInt, Description: "How many accounts such a server holds that another operator signed. They are left alone."},
					"rewritten": {Type: framework.TypeBool, Description: "Whether a server had lost files, and all were written anew."},
					"pruned":    {Type: framework.TypeInt, Description: "How many of these were removed."},
					"servers":   {Type: framework.TypeSlice, Description: "The nats-servers that answer, and those that did and do not now."},
				}),
			},
		},
		HelpSynopsis:    "Bring the NATS servers to what the mount holds, and see how far they are.",
		HelpDescription: syncHelp,
	}}
}

// writeSync has the comparison go on in the background when it takes longer than
// a request may.
func (b *backend) writeSync(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	reconciler, err := b.deliverySide(ctx, req.Storage)
	if err != nil {
		return answer(err)
	}
	type result struct {
		report *delivery.Report
		err    error
	}
	done := make(chan result, 1)
	options := delivery.Options{Unknown: true, Prune: d.Get("prune").(bool)}
	b.inBackground(func(ctx context.Context) {
		report, err := reconciler.Sync(ctx, options)
		done <- result{report, err}
	})
	timer := time.NewTimer(syncWait)
	defer timer.Stop()
	select {
	case r := <-done:
		if r.err != nil {
			return nil, logical.CodedError(http.StatusBadGateway, r.err.Error())
		}
		resp, err := asResponse(r.report)
		if err != nil {
			return nil, err
		}
		if r.report.Failed > 0 {
			resp.AddWarning(fmt.Sprintf("%d accounts could not be delivered, which is tried until it succeeds", r.report.Failed))
		}
		warnings, err := b.warnings(ctx, req.Storage, reconciler.State(), nil, time.Now())
		resp.Warnings = append(resp.Warnings, warnings...)
		return resp, err
	case <-timer.C:
	case <-ctx.Done():
	}
	resp := &logical.Response{}
	resp.AddWarning("it takes longer and goes on in the background: read sync for its report")
	return resp, nil
}

func (b *backend) readSync(ctx context.Context, req *logical.Request, d *framework.FieldData) (*logical.Response, error) {
	reconciler, err := b.deliverySide(ctx, req.Storage)
	if err != nil {
		return answer(err)
	}
	limit := d.Get("limit").(int)
	if limit < 1 || limit > syncMaxPage {
		return answer(fault.In("limit", "is %d, and has to be between 1 and %d", limit, syncMaxPage))
	}
	page := syncAccounts{backend: b, storage: req.Storage, reconciler: reconciler, full: make(map[string]bool)}
	switch name := d.Get("account").(string); {
	case name != "":
		err = page.one(ctx, name)
	case d.Get("pending").(bool):
		err = page.undelivered(ctx, d.Get("after").(string), limit)
	default:
		err = page.all(ctx, d.Get("after").(string), limit)
	}
	if err != nil {
		return answer(err)
	}
	state := reconciler.State()
	resp, err := asResponse(state)
	if err != nil {
		return nil, err
	}
	resp.Data["error"] = state.Error
	if state.LastSync == nil {
		resp.Data["last_sync"] = map[string]any{}
	}
	resp.Data["accounts"], resp.Data["next"] = page.list, page.next
	warnings, err := b.warnings(ctx, req.Storage, state, page.full, time.Now())
	if err != nil {
		return nil, err
	}
	resp.Warnings = append(page.warnings, warnings...)
	return resp, nil
}

// clockWarnings tell of servers, and of a node that led before, whose clocks are further
// off than revocations reach.
func (b *backend) clockWarnings(ctx context.Context, s logical.Storage, state delivery.State) ([]string, error) {
	skew, err := b.chain.ClockSkew(ctx, s)
	if err != nil {
		return nil, err
	}
	var warnings []string
	if ahead := b.chain.FormerAhead(); ahead > skew {
		warnings = append(warnings, fmt.Sprintf("the clock of the Vault node that led before was ahead of this one's by %.0f seconds or more, more than the clock_skew of config (%s): "+
			"what it has issued may not be revoked by what is revoked here; set the clocks, and revoke again once they are set", ahead.Seconds(), skew))
	}
	for _, server := range state.Servers {
		if math.Abs(server.ClockAhead) > skew.Seconds() {
			warnings = append(warnings, fmt.Sprintf("the clock of NATS server %s differs from Vault's by %.0f seconds, more than the clock_skew of config (%s): "+
				"revocations may not hold there; set its clock", server.Name, math.Abs(server.ClockAhead), skew))
		}
	}
	return warnings, nil
}

// deliverySide is the running reconciler.
func (b *backend) deliverySide(ctx context.Context, s logical.Storage) (*delivery.Reconciler, error) {
	if err := b.startDelivery(ctx, s); err != nil {
		return nil, err
	}
	if reconciler := b.delivery.running(); reconciler != nil {
		return reconciler, nil
	}
	return nil, fault.In("", "nothing is delivered: the mount has no operator that can sign and no system account (see config)")
}

// syncAccounts is one page of the accounts' states.
type syncAccounts struct {
	*backend
	storage    logical.Storage
	reconciler *delivery.Reconciler
	list       []syncAccount
	next       string
	warnings   []string
	full       map[string]bool // by public key, those with a warning
}

type syncAccount struct {
	Name string `json:"name,omitempty"` // empty once an account is gone from the servers too
	delivery.AccountState

	// Of an account that has revocations: how many, and how many fit into its JWT.
	Revocations     int `json:"revocations,omitempty"`
	RevocationsRoom int `json:"revocations_room,omitempty"`
}

func (p *syncAccounts) one(ctx context.Context, name string) error {
	account, err := p.chain.Account(ctx, p.storage, name)
	if err != nil {
		return err
	}
	if account == nil {
		return fault.In("account", "%q is not an account of this mount", name)
	}
	return p.add(ctx, account.PublicKey)
}

func (p *syncAccounts) undelivered(ctx context.Context, after string, limit int) error {
	for _, state := range p.reconciler.Pending(after, limit) {
		if err := p.add(ctx, state.Account); err != nil {
			return err
		}
	}
	p.cut(limit)
	return nil
}

func (p *syncAccounts) all(ctx context.Context, after string, limit int) error {
	var ids []string
	for id, err := range p.chain.Source(p.storage).All(ctx) {
		if err != nil {
			return err
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	begin, found := slices.BinarySearch(ids, after)
	if found {
		begin++
	}
	for _, id := range ids[begin:min(begin+limit, len(ids))] {
		if err := p.add(ctx, id); err != nil {
			return err
		}
	}
	p.cut(limit)
	return nil
}

// cut says where the next page begins, if this one is full.
func (p *syncAccounts) cut(limit int) {
	if len(p.list) == limit {
		p.next = p.list[limit-1].Account
	}
}

func (p *syncAccounts) add(ctx context.Context, id string) error {
	state, err := p.reconciler.Status(ctx, id)
	if err != nil {
		return err
	}
	account := syncAccount{AccountState: state}
	name, revoked, err := p.chain.Known(ctx, p.storage, id)
	if err != nil { // it is this account's fault, and no other's
		account.Error = cmp.Or(account.Error, err.Error())
	}
	account.Name = name
	if revoked {
		load, err := p.chain.RevocationLoad(ctx, p.storage, id)
		if err != nil {
			account.Error = cmp.Or(account.Error, err.Error())
		}
		account.Revocations, account.RevocationsRoom = load.Count, load.Room
		if warning := load.Warning(); warning != "" {
			p.full[id] = true
			p.warnings = append(p.warnings, fmt.Sprintf("%s: %s", account.Name, warning))
		}
	}
	p.list = append(p.list, account)
	return nil
}

// asResponse shows a value as its JSON is.
func asResponse(value any) (*logical.Response, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	resp := &logical.Response{}
	return resp, json.Unmarshal(text, &resp.Data)
}

const syncHelp = `
Every change of an account is stored first and then delivered to the NATS
servers, again and again until they have it. Beyond that, everything is compared
when a server comes or comes back, and from time to time. So there is nothing to
be done here in the normal course of things.

A write compares now, delivers what differs, and reports. Accounts that servers
hold, a key of the operator signed and the mount does not know are listed as
unknown; with prune=true they are removed. Take care to prune only when all
accounts of the operator are in this mount.

A server of another operator whose system account is linked with this one's (over a
leafnode) is listed with its "foreign_operator". It is not waited for, and accounts
that its operator signed are left alone.

A removal needs "allow_delete: true" in a server's resolver. A server without it
is given a last account JWT instead, which lets nobody in and expires within a
minute; "delete_refused" of the server tells.

A read shows what is known: the servers, those that are missing and since when,
and a page of the accounts. A version is the "jti" of an account JWT. A removed
account stays pending while a server is missing that could bring it back.
`
