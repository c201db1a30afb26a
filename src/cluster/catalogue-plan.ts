/** One change of a database's name. Done in order, each finds its new name free. */
export interface NameChange {
  readonly type: 'create' | 'rename';
  readonly id: string;
  readonly name: string;
}

export interface NamedDatabase {
  readonly id: string;
  readonly name: string;
}

/**
 * What makes `current` carry the names of `wanted`, in an order in which no new name is taken; databases that are not in
 * `wanted` are left alone, so their names must not be among the wanted ones. Names that go round in a circle are broken
 * up by a rename to `temporaryName(id)`.
 */
export function planNames(
  current: Iterable<NamedDatabase>,
  wanted: Iterable<NamedDatabase>,
  temporaryName: (id: string) => string,
): NameChange[] {
  const changes: NameChange[] = [];
  const owners = new Map<string, string>();
  const names = new Map<string, string>();
  for (const {id, name} of current) {
    owners.set(name, id);
    names.set(id, name);
  }
  const pending = new Map<string, string>();
  for (const {id, name} of wanted) if (names.get(id) !== name) pending.set(id, name);
  const move = (id: string, name: string) => {
    const old = names.get(id);
    if (old !== undefined && owners.get(old) === id) owners.delete(old);
    owners.set(name, id);
    names.set(id, name);
    changes.push({type: old === undefined ? 'create' : 'rename', id, name});
  };
  // Follow the chain from each database to the one that holds its name, then settle it from the end.
  for (const start of [...pending.keys()]) {
    const chain = chainFrom(start, pending, owners);
    const last = chain.at(-1);
    const holder = last === undefined ? undefined : owners.get(pending.get(last) ?? '');
    if (holder !== undefined) move(holder, temporaryName(holder));
    for (const id of chain.reverse()) {
      const name = pending.get(id);
      if (name !== undefined) move(id, name);
      pending.delete(id);
    }
  }
  return changes;
}

/** Databases that must be renamed for `start` to be, it first: ends where a name is free or the chain meets itself. */
function chainFrom(
  start: string,
  pending: ReadonlyMap<string, string>,
  owners: ReadonlyMap<string, string>,
): string[] {
  const chain = new Set<string>();
  let id: string | undefined = start;
  while (id !== undefined && !chain.has(id)) {
    const name = pending.get(id);
    if (name === undefined) break;
    chain.add(id);
    id = owners.get(name);
  }
  return [...chain];
}
