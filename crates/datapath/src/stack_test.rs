// SPDX-License-Identifier: Apache-2.0
//! The stack that the programs need, counted from the objects: the kernel at hand may be more generous than the oldest one that is
//! supported, where loading shows it only on that one.

use std::collections::{BTreeMap, BTreeSet};

use object::{File, Object, ObjectSection, ObjectSymbol, RelocationTarget, SymbolKind};

use super::OBJECTS;

/// `MAX_BPF_STACK`: of a program and all functions that are under way.
const STACK_MAX: u64 = 512;
/// What kernels before 6.9 round each frame up to (`check_max_stack_depth` of the verifier).
const FRAME: u64 = 32;
const INSTRUCTION: usize = 8;
/// `BPF_ALU64 | BPF_MOV | BPF_X`, `BPF_ALU64 | BPF_ADD | BPF_K` and `BPF_JMP | BPF_CALL`.
const MOVE: u8 = 0xbf;
const ADD: u8 = 0x07;
const CALL: u8 = 0x85;
/// Classes of instructions: `BPF_LDX`, and `BPF_ST` and `BPF_STX`.
const LOAD: u8 = 1;
const STORES: [u8; 2] = [2, 3];
const FRAME_POINTER: u8 = 10;
/// `BPF_PSEUDO_CALL`: of a function of the program, not of a helper.
const OWN_FUNCTION: u8 = 1;

/// Section and offset.
type Place = (usize, u64);

struct Function {
    name: String,
    depth: u64,
    calls: BTreeSet<Place>,
}

#[test]
fn no_chain_of_calls_needs_more_stack_than_old_kernels_have() {
    for (object, bytes) in OBJECTS {
        let functions = functions(&File::parse(bytes).unwrap());
        let called: BTreeSet<Place> = functions.values().flat_map(|one| one.calls.clone()).collect();
        let programs = functions.keys().filter(|place| !called.contains(place));
        let (most, chain) = programs.map(|place| deepest(&functions, *place)).max().unwrap();
        assert!(most <= STACK_MAX, "{object}: {most} bytes of stack in {chain:?}");
        // The programs are known to need most of it: less means that the count is wrong.
        assert!(
            most > STACK_MAX / 4,
            "{object}: {most} bytes of stack in {chain:?}"
        );
    }
}

fn functions(file: &File<'_>) -> BTreeMap<Place, Function> {
    let symbols = file
        .symbols()
        .filter(|one| one.kind() == SymbolKind::Text && one.size() > 0);
    let function = |symbol: object::Symbol<'_, '_>| {
        let index = symbol.section_index().unwrap();
        let place = (index.0, symbol.address());
        let section = file.section_by_index(index).unwrap();
        let targets: BTreeMap<u64, RelocationTarget> = section
            .relocations()
            .map(|(at, relocation)| (at, relocation.target()))
            .collect();
        let from = usize::try_from(place.1).unwrap();
        let code = &section.data().unwrap()[from..][..usize::try_from(symbol.size()).unwrap()];
        let mut found = Function {
            name: symbol.name().unwrap().to_owned(),
            depth: 0,
            calls: BTreeSet::new(),
        };
        // Registers that hold the frame pointer as it is.
        let mut copies = BTreeSet::new();
        for (at, instruction) in (place.1..)
            .step_by(INSTRUCTION)
            .zip(code.chunks_exact(INSTRUCTION))
        {
            let [op, registers, o0, o1, i0, i1, i2, i3] = <[u8; INSTRUCTION]>::try_from(instruction).unwrap();
            let (to, from) = (registers & 15, registers >> 4);
            let offset = i64::from(i16::from_le_bytes([o0, o1]));
            let immediate = i64::from(i32::from_le_bytes([i0, i1, i2, i3]));
            let mut below = |offset: i64| found.depth = found.depth.max(offset.min(0).unsigned_abs());
            match op {
                MOVE if from == FRAME_POINTER => {
                    copies.insert(to);
                }
                ADD if copies.remove(&to) => below(immediate),
                CALL if from == OWN_FUNCTION => {
                    found.calls.insert(match targets.get(&at) {
                        Some(RelocationTarget::Symbol(index)) => {
                            let symbol = file.symbol_by_index(*index).unwrap();
                            let within = if symbol.kind() == SymbolKind::Section {
                                (immediate + 1) * 8
                            } else {
                                0
                            };
                            (
                                symbol.section_index().unwrap().0,
                                symbol.address().wrapping_add_signed(within),
                            )
                        }
                        _ => (place.0, (at + 8).wrapping_add_signed(immediate * 8)),
                    });
                }
                _ if STORES.contains(&(op & 7)) && to == FRAME_POINTER => below(offset),
                _ if op & 7 == LOAD && from == FRAME_POINTER => below(offset),
                _ => {}
            }
        }
        (place, found)
    };
    symbols.map(function).collect()
}

/// How much the deepest chain of calls needs that begins with a function, and which it is.
fn deepest(functions: &BTreeMap<Place, Function>, place: Place) -> (u64, Vec<&str>) {
    let function = &functions[&place];
    let calls = function.calls.iter().map(|call| deepest(functions, *call));
    let (below, mut chain) = calls.max().unwrap_or_default();
    chain.insert(0, &function.name);
    (function.depth.max(1).next_multiple_of(FRAME) + below, chain)
}
