package plugin

import (
	"slices"

	"github.com/hashicorp/vault/sdk/framework"
)

// pageFields are the fields of every list, as OpenBao's own lists have them.
func pageFields() map[string]*framework.FieldSchema {
	return map[string]*framework.FieldSchema{
		"after": {Type: framework.TypeString, Query: true, Description: "List only names that come after this one."},
		"limit": {Type: framework.TypeInt, Query: true, Description: "List at most so many names. Default, and for zero and less: all."},
	}
}

// page is the part of all names that a list is asked for. OpenBao's clients send
// the limit -1 where their user gave none.
func page(names []string, d *framework.FieldData) []string {
	slices.Sort(names)
	if after := d.Get("after").(string); after != "" {
		first, found := slices.BinarySearch(names, after)
		if found {
			first++
		}
		names = names[first:]
	}
	if limit := d.Get("limit").(int); limit > 0 && len(names) > limit {
		names = names[:limit]
	}
	return names
}
