//! Which steps of an image are due.
//!
//! A step makes a directory. Beside it lies a stamp: the digests of all that the step was made
//! from. The directory takes its place by a rename, and the stamp is written last, so that a step
//! that was broken off is made again.

use std::{
    error::Error,
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use super::step;

/// Makes `place` by `make`, unless it was made from these same files.
pub(super) fn unless_current(
    place: &Path,
    inputs: &[PathBuf],
    make: impl FnOnce(&Path) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    let stamp = place.with_extension("stamp");
    let due = digests(inputs)?;
    if place.is_dir() && fs::read_to_string(&stamp).is_ok_and(|made| made == due) {
        return Ok(());
    }
    let begun = Instant::now();
    let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
    let new = place.with_extension("new");
    clear(&new)?;
    fs::create_dir(&new)?;
    make(&new)?;
    if let Err(error) = fs::remove_file(&stamp)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error.into());
    }
    clear(place)?;
    fs::rename(&new, place)?;
    fs::write(&stamp, due)?;
    let seconds = begun.elapsed().as_secs_f32();
    println!("image: {} is made, in {seconds:.1} s", name(place));
    Ok(())
}

/// The digest and the name of each file, and of each file in a directory.
fn digests(inputs: &[PathBuf]) -> Result<String, Box<dyn Error>> {
    let mut files = Vec::new();
    for input in inputs {
        collect(input, &mut files)?;
    }
    files.sort();
    step::run(Command::new("sha256sum").arg("--").args(files))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Box<dyn Error>> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        collect(&entry?.path(), files)?;
    }
    Ok(())
}

fn clear(directory: &Path) -> Result<(), Box<dyn Error>> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(format!("{}: {error}; remove it by hand", directory.display()).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, env, fs, process};

    use super::unless_current;

    #[test]
    fn makes_again_what_was_made_from_something_else() {
        let directory = env::temp_dir().join(format!("edgerepl-stamp-{}", process::id()));
        fs::create_dir_all(directory.join("in")).expect("a directory");
        let (input, place) = (directory.join("in"), directory.join("out"));
        fs::write(input.join("file"), "one").expect("an input");
        let times = Cell::new(0);
        let inputs = [input.clone()];
        let make = || {
            unless_current(&place, &inputs, |new| {
                times.set(times.get() + 1);
                Ok(fs::write(new.join("made"), "")?)
            })
            .expect("a step");
            times.get()
        };
        assert_eq!(make(), 1);
        assert_eq!(make(), 1, "nothing changed");
        fs::write(input.join("file"), "two").expect("an input");
        assert_eq!(make(), 2, "another content");
        fs::write(input.join("more"), "").expect("an input");
        assert_eq!(make(), 3, "one more file");
        fs::remove_dir_all(&place).expect("gone");
        assert_eq!(make(), 4, "nothing there");
        fs::remove_file(input.join("more")).expect("gone");
        let failed = unless_current(&place, &inputs, |_| Err("broken".into()));
        assert!(failed.is_err());
        assert_eq!(make(), 5, "what failed is done again");
        fs::remove_dir_all(&directory).expect("clean");
    }
}
