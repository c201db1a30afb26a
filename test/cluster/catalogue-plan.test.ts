import fc from 'fast-check';
import {expect, test} from 'vitest';
import {type NamedDatabase, planNames} from '../../src/cluster/catalogue-plan.ts';

const temporary = (id: string) => `tmp-${id}`;

function toDatabases(names: readonly string[], ids: readonly string[]): NamedDatabase[] {
  return names.slice(0, ids.length).map((name, index) => ({id: ids[index], name}));
}

test('planNames() gives every database its name, and never one that is taken', () => {
  const names = fc.shuffledSubarray(['a', 'b', 'c', 'd', 'e', 'f', 'g']);
  const ids = fc.shuffledSubarray(['1', '2', '3', '4', '5', '6', '7']);
  fc.assert(
    fc.property(names, ids, names, ids, (currentNames, currentIds, wantedNames, wantedIds) => {
      const wanted = toDatabases(wantedNames, wantedIds);
      const wantedOnly = new Set(wanted.map(({id}) => id));
      const current = toDatabases(currentNames, currentIds).filter(({id}) => wantedOnly.has(id));
      const held = new Map(current.map(({id, name}) => [id, name]));
      for (const {type, id, name} of planNames(current, wanted, temporary)) {
        expect([...held.values()]).not.toContain(name);
        expect(held.has(id)).toBe(type === 'rename');
        held.set(id, name);
      }
      expect([...held].sort()).toEqual(wanted.map(({id, name}) => [id, name]).sort());
    }),
  );
});

test('planNames() does nothing where nothing is to be done', () => {
  const databases = [
    {id: '1', name: 'a'},
    {id: '2', name: 'b'},
  ];
  expect(planNames(databases, databases, temporary)).toEqual([]);
});

test('planNames() breaks up a circle with one name more', () => {
  const current = ['a', 'b', 'c'].map(name => ({id: name, name}));
  const wanted = [
    {id: 'a', name: 'b'},
    {id: 'b', name: 'c'},
    {id: 'c', name: 'a'},
  ];
  expect(planNames(current, wanted, temporary)).toHaveLength(4);
});
