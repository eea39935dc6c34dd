'use strict';
// A pretend kitchen whose only purpose is to be profiled: recursion, closures, classes, JSON, regular expressions,
// awaits, and dishes that stay in memory. `node kitchen.js <cpu file> <lines file> <heap file>` records two CPU profiles
// of itself (one with a label per order, one by source line; the profiler cannot do both) and a heap profile.

const fs = require('fs');
const { time, heap, encodeSync } = require('@datadog/pprof');

const WINDOW_MS = 2500;

// Plain recursion.
function chop(n) {
  return n < 2 ? n : chop(n - 1) + chop(n - 2);
}

class Pot {
  constructor(size) {
    this.contents = new Array(size);
    for (let i = 0; i < size; i++) this.contents[i] = { id: i, name: `carrot-${i % 31}`, grams: (i * 7919) % 1000 };
  }

  stir() {
    return this.contents.map((item) => item.grams * 2).filter((grams) => grams % 3 === 0).reduce((a, b) => a + b, 0);
  }

  label() {
    const text = JSON.stringify(this.contents);
    return text.replace(/carrot-(\d+)/g, (match, digits) => `c${digits}`).length;
  }
}

// An anonymous function on purpose.
const taste = (function () {
  let sum = 0;
  return function (value) {
    for (let i = 0; i < 20000; i++) sum = (sum * 31 + value + i) % 1000003;
    return sum;
  };
})();

async function cook(order, pantry, withContexts) {
  if (withContexts) time.setContext({ order });
  const pot = new Pot(400);
  const sum = chop(17) + pot.stir() + pot.label() + taste(pot.contents.length);
  await null;
  if (pantry.length < 200) pantry.push(pot);
  return sum;
}

async function open(pantry, options) {
  time.start({ intervalMicros: 10000, columnNumbers: 'emit', ...options });
  const until = Date.now() + WINDOW_MS;
  let sum = 0;
  for (let turn = 0; Date.now() < until; turn++) {
    sum += await cook(['soup', 'salad', 'stew'][turn % 3], pantry, options.withContexts);
    if (turn % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  }
  console.error(sum, pantry.length);
  return time.stop(false, ({ context }) => ({ order: context?.context?.order ?? 'none' }));
}

async function main(cpuFile, linesFile, heapFile) {
  const pantry = [];
  heap.start(16 * 1024, 64);
  fs.writeFileSync(cpuFile, encodeSync(await open(pantry, { withContexts: true })));
  fs.writeFileSync(linesFile, encodeSync(await open(pantry, { lineNumbers: true })));
  fs.writeFileSync(heapFile, encodeSync(heap.profile()));
  heap.stop();
}

main(...process.argv.slice(2));
