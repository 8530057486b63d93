//! A disk in memory that fails as real ones do, from a seed: at a power cut each unsynced sector is its old
//! or any of its newer versions by itself, and each unsynced change of names has happened or not. A failed
//! sync leaves what was written visible and only some of it durable, now and later, as Linux does. Tests and the simulator use it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Disk, DiskFile, to_usize};

/// What a disk writes at once or not at all.
pub const SECTOR_BYTES: usize = 512;

/// A directory of a disk in memory. Clones and subdirectories are the same disk.
#[derive(Clone)]
pub struct MemoryDisk {
    world: Arc<Mutex<World>>,
    prefix: String,
}

struct World {
    random: Random,
    /// What programs see.
    names: BTreeMap<String, usize>,
    /// What is left after a power cut if no pending change survives.
    names_durable: BTreeMap<String, usize>,
    pending: Vec<(String, NameChange)>,
    inodes: BTreeMap<usize, Inode>,
    inode_next: usize,
    /// Raised by a power cut: handles of an older one belong to a process that is gone.
    generation: u64,
    bytes_max: Option<u64>,
    syncs_until_error: Option<u64>,
    refuses_names: bool,
    syncs: u64,
}

#[derive(Clone)]
enum NameChange {
    Set(String, usize),
    Rename(String, String),
    Remove(String),
}

#[derive(Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors written since the last sync, with all their versions, oldest first.
    dirty: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl fmt::Debug for MemoryDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDisk")
            .field("prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}

impl MemoryDisk {
    /// An empty disk without faults; the seed decides what power cuts leave.
    pub fn new(seed: u64) -> Self {
        let world = World {
            random: Random(seed),
            names: BTreeMap::new(),
            names_durable: BTreeMap::new(),
            pending: Vec::new(),
            inodes: BTreeMap::new(),
            inode_next: 0,
            generation: 0,
            bytes_max: None,
            syncs_until_error: None,
            refuses_names: false,
            syncs: 0,
        };
        Self {
            world: Arc::new(Mutex::new(world)),
            prefix: String::new(),
        }
    }

    /// The machine loses power and comes back: only durable bytes are sure, each unsynced sector and each
    /// unsynced change of names survived or not. Handles from before answer errors. Faults are over.
    pub fn power_cut(&self) {
        let mut world = self.world();
        world.generation += 1;
        world.clear_faults();
        let World {
            random,
            names,
            names_durable,
            pending,
            inodes,
            ..
        } = &mut *world;
        for (_, change) in pending.drain(..) {
            if random.coin() {
                apply(names_durable, &change);
            }
        }
        names.clone_from(names_durable);
        let alive: BTreeSet<usize> = names.values().copied().collect();
        inodes.retain(|id, _| alive.contains(id));
        for inode in inodes.values_mut() {
            inode.power_cut(random);
        }
    }

    /// The process is killed and the machine lives on: what was written stays visible, durable or not.
    /// Handles from before answer errors.
    pub fn process_killed(&self) {
        self.world().generation += 1;
    }

    /// From now on the files together may hold at most this many bytes; none = no limit.
    pub fn limit_bytes(&self, bytes_max: Option<u64>) {
        self.world().bytes_max = bytes_max;
    }

    /// The sync of a file after this many more good ones fails: some of what it should have made durable never will be.
    pub fn fail_sync_after(&self, syncs: u64) {
        self.world().syncs_until_error = Some(syncs);
    }

    /// From now on no name can be made, changed or removed.
    pub fn refuse_names(&self) {
        self.world().refuses_names = true;
    }

    /// Takes back each fault that was asked for.
    pub fn clear_faults(&self) {
        self.world().clear_faults();
    }

    /// How many syncs of files succeeded since the disk was made.
    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    /// Bytes of all files together.
    pub fn bytes(&self) -> u64 {
        self.world().bytes()
    }

    /// Flips one bit of a file's content, durably.
    ///
    /// # Panics
    /// When the file or the byte does not exist.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u32) {
        self.edit(name, |content| content[to_usize(offset)] ^= 1 << (bit % 8));
    }

    /// Cuts a file or appends to it or changes it in any other way, durably.
    ///
    /// # Panics
    /// When the file does not exist.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut world = self.world();
        let id = world.names[&self.full(name)];
        let inode = world.inodes.get_mut(&id).expect("each name has its inode");
        change(&mut inode.content);
        inode.durable.clone_from(&inode.content);
        inode.dirty.clear();
    }

    /// A file's whole content.
    ///
    /// # Panics
    /// When the file does not exist.
    pub fn content(&self, name: &str) -> Vec<u8> {
        let world = self.world();
        world.inodes[&world.names[&self.full(name)]].content.clone()
    }

    /// The same directory as this type; [`Disk::directory`] hides it behind the trait.
    #[must_use]
    pub fn below(&self, name: &str) -> Self {
        Self {
            world: Arc::clone(&self.world),
            prefix: format!("{}/", self.full(name)),
        }
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no holder of this lock panics")
    }

    fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn handle(&self, id: usize, generation: u64) -> Arc<dyn DiskFile> {
        Arc::new(MemoryFile {
            world: Arc::clone(&self.world),
            id,
            generation,
        })
    }
}

impl Disk for MemoryDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let world = self.world();
        let id = *world.names.get(&self.full(name)).ok_or(io::ErrorKind::NotFound)?;
        Ok(self.handle(id, world.generation))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut world = self.world();
        let full = self.full(name);
        if world.names.contains_key(&full) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = world.inode_next;
        world.inode_next += 1;
        world.inodes.insert(id, Inode::default());
        world.change(&self.prefix, NameChange::Set(full, id))?;
        Ok(self.handle(id, world.generation))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut world = self.world();
        let from = self.full(from);
        if !world.names.contains_key(&from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change(&self.prefix, NameChange::Rename(from, self.full(to)))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut world = self.world();
        let full = self.full(name);
        if !world.names.contains_key(&full) {
            return Err(io::ErrorKind::NotFound.into());
        }
        world.change(&self.prefix, NameChange::Remove(full))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let world = self.world();
        let below = world
            .names
            .keys()
            .filter_map(|name| name.strip_prefix(&self.prefix));
        Ok(below
            .filter(|name| !name.contains('/'))
            .map(str::to_owned)
            .collect())
    }

    fn sync(&self) -> io::Result<()> {
        let mut world = self.world();
        let World {
            names_durable,
            pending,
            ..
        } = &mut *world;
        pending.retain(|(prefix, change)| {
            if *prefix == self.prefix {
                apply(names_durable, change);
            }
            *prefix != self.prefix
        });
        Ok(())
    }

    fn directory(&self, name: &str) -> io::Result<Arc<dyn Disk>> {
        Ok(Arc::new(self.below(name)))
    }

    fn describe(&self, name: &str) -> String {
        self.full(name)
    }
}

impl World {
    fn change(&mut self, prefix: &str, change: NameChange) -> io::Result<()> {
        if self.refuses_names {
            return Err(io::Error::other("input/output error (simulated)"));
        }
        apply(&mut self.names, &change);
        self.pending.push((prefix.to_owned(), change));
        Ok(())
    }

    fn clear_faults(&mut self) {
        self.bytes_max = None;
        self.syncs_until_error = None;
        self.refuses_names = false;
    }

    fn bytes(&self) -> u64 {
        let used = |id: &usize| self.inodes[id].content.len() as u64;
        self.names.values().map(used).sum()
    }

    /// The inode of a handle; an error when the handle is of a process that is gone.
    fn inode(&mut self, id: usize, generation: u64) -> io::Result<&mut Inode> {
        if generation != self.generation {
            return Err(io::Error::other("this handle is from before the crash"));
        }
        self.inodes
            .get_mut(&id)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Refuses growth beyond the limit.
    fn admit_growth(&self, id: usize, length: usize) -> io::Result<()> {
        let now = self.inodes.get(&id).map_or(0, |inode| inode.content.len());
        let growth = length.saturating_sub(now) as u64;
        match self.bytes_max {
            Some(bytes_max) if growth > 0 && self.bytes() + growth > bytes_max => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

/// Does a change of names; one that lost what it rests on does nothing.
fn apply(names: &mut BTreeMap<String, usize>, change: &NameChange) {
    match change {
        NameChange::Set(name, id) => {
            names.insert(name.clone(), *id);
        }
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
        NameChange::Remove(name) => {
            names.remove(name);
        }
    }
}

impl Inode {
    fn write(&mut self, bytes: &[u8], offset: usize) {
        let end = offset + bytes.len();
        if self.content.len() < end {
            self.content.extend_from_slice(&vec![0; end - self.content.len()]);
        }
        self.content[offset..end].copy_from_slice(bytes);
        for sector in offset / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES) {
            let version = sector_of(&self.content, sector);
            self.dirty.entry(sector).or_default().push(version);
        }
    }

    fn sync(&mut self) {
        self.durable.resize(self.content.len(), 0);
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            let newest = sector_of(&self.content, sector);
            put_sector(&mut self.durable, sector, &newest);
        }
    }

    /// The disk took some sectors and failed; the system drops the rest: visible, clean, and never durable.
    fn sync_in_part(&mut self, random: &mut Random) {
        self.durable.resize(self.content.len(), 0);
        for sector in std::mem::take(&mut self.dirty).into_keys() {
            if random.coin() {
                let newest = sector_of(&self.content, sector);
                put_sector(&mut self.durable, sector, &newest);
            }
        }
    }

    /// Each dirty sector becomes one of its versions, the durable one included.
    fn power_cut(&mut self, random: &mut Random) {
        let length = if random.coin() {
            self.content.len()
        } else {
            self.durable.len()
        };
        let length = if self.content.len() < self.durable.len() {
            self.durable.len()
        } else {
            length
        };
        self.durable.resize(length, 0);
        for (sector, versions) in std::mem::take(&mut self.dirty) {
            let chosen = random.below(versions.len() as u64 + 1);
            if let Some(version) = chosen.checked_sub(1).map(|at| &versions[to_usize(at)]) {
                put_sector(&mut self.durable, sector, version);
            }
        }
        self.content.clone_from(&self.durable);
    }
}

fn sector_of(content: &[u8], sector: usize) -> Vec<u8> {
    let from = (sector * SECTOR_BYTES).min(content.len());
    content[from..(from + SECTOR_BYTES).min(content.len())].to_vec()
}

fn put_sector(content: &mut [u8], sector: usize, version: &[u8]) {
    let from = (sector * SECTOR_BYTES).min(content.len());
    let count = version.len().min(content.len() - from);
    content[from..from + count].copy_from_slice(&version[..count]);
}

struct MemoryFile {
    world: Arc<Mutex<World>>,
    id: usize,
    generation: u64,
}

impl MemoryFile {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no holder of this lock panics")
    }
}

impl fmt::Debug for MemoryFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryFile")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl DiskFile for MemoryFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut world = self.world();
        let content = &world.inode(self.id, self.generation)?.content;
        let from = to_usize(offset).min(content.len());
        let count = buffer.len().min(content.len() - from);
        buffer[..count].copy_from_slice(&content[from..from + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut world = self.world();
        world.admit_growth(self.id, to_usize(offset) + bytes.len())?;
        world
            .inode(self.id, self.generation)?
            .write(bytes, to_usize(offset));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut world = self.world();
        let fails = world.syncs_until_error == Some(0);
        world.syncs_until_error = world.syncs_until_error.map(|left| left.saturating_sub(1));
        let seed = world.random.next();
        let inode = world.inode(self.id, self.generation)?;
        if fails {
            inode.sync_in_part(&mut Random(seed));
            world.syncs_until_error = None;
            return Err(io::Error::other("input/output error (simulated)"));
        }
        inode.sync();
        world.syncs += 1;
        Ok(())
    }

    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.world().admit_growth(self.id, to_usize(bytes))
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.world().inode(self.id, self.generation)?.content.len() as u64)
    }

    fn set_length(&self, bytes: u64) -> io::Result<()> {
        let mut world = self.world();
        world.admit_growth(self.id, to_usize(bytes))?;
        world
            .inode(self.id, self.generation)?
            .content
            .resize(to_usize(bytes), 0);
        Ok(())
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): small, seeded, good enough to choose faults.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below the limit.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synced_bytes_and_names_survive_a_power_cut() {
        for seed in 0..50 {
            let disk = MemoryDisk::new(seed);
            let file = disk.create("a").unwrap();
            file.write_at(&[7; 2000], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync().unwrap();
            disk.power_cut();
            assert_eq!(disk.content("a"), [7; 2000]);
            assert!(file.length().is_err(), "a handle of a dead process works");
        }
    }

    #[test]
    fn unsynced_sectors_survive_each_by_itself() {
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let disk = MemoryDisk::new(seed);
            let file = disk.create("a").unwrap();
            file.write_at(&[0; 3 * SECTOR_BYTES], 0).unwrap();
            file.sync_data().unwrap();
            disk.sync().unwrap();
            file.write_at(&[1; 3 * SECTOR_BYTES], 0).unwrap();
            disk.power_cut();
            let content = disk.content("a");
            seen.insert([content[0], content[SECTOR_BYTES], content[2 * SECTOR_BYTES]]);
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
    }

    #[test]
    fn unsynced_names_may_be_lost() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..50 {
            let disk = MemoryDisk::new(seed);
            disk.create("a").unwrap();
            disk.sync().unwrap();
            disk.rename("a", "b").unwrap();
            disk.power_cut();
            outcomes.insert(disk.list().unwrap());
        }
        assert_eq!(outcomes.len(), 2);
    }

    #[test]
    fn a_failed_sync_makes_the_rest_durable_never() {
        let disk = MemoryDisk::new(3);
        let file = disk.create("a").unwrap();
        file.write_at(&[0; 50 * SECTOR_BYTES], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync().unwrap();
        disk.fail_sync_after(0);
        file.write_at(&[1; 50 * SECTOR_BYTES], 0).unwrap();
        assert!(file.sync_data().is_err());
        assert!(file.sync_data().is_ok());
        assert_eq!(disk.content("a"), [1; 50 * SECTOR_BYTES]);
        disk.power_cut();
        let kept = disk.content("a").iter().filter(|byte| **byte == 1).count() / SECTOR_BYTES;
        assert!((1..50).contains(&kept), "{kept} of 50 sectors");
    }

    #[test]
    fn a_full_disk_refuses_growth_only() {
        let disk = MemoryDisk::new(3);
        let file = disk.create("a").unwrap();
        file.write_at(&[0; 100], 0).unwrap();
        disk.limit_bytes(Some(100));
        file.write_at(&[1; 100], 0).unwrap();
        assert_eq!(
            file.write_at(&[1; 1], 100).unwrap_err().kind(),
            io::ErrorKind::StorageFull
        );
    }
}
