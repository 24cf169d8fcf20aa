//! The manual pages and the completions of shells, in `dist/`: made of the command's own definition
//! and of the shipped configuration, and never edited by hand.
//!
//! Fails where they are not what they are made of; they are written anew by
//! `EDGEREPL_WRITE=1 cargo xtask test manual`.

use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap_complete::aot::{Bash, Fish, Generator, Zsh};
use clap_mangen::Man;
use edgerepl_lab::tools;
use roff::{Inline, Roff, bold, roman};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

#[test]
fn what_is_shipped_is_what_the_command_says_of_itself() -> Outcome {
    for (name, text) in manual()?.into_iter().chain(completions()?) {
        let file = dist().join(&name);
        if env::var_os("EDGEREPL_WRITE").is_some() {
            fs::create_dir_all(file.parent().ok_or("no folder")?)?;
            fs::write(&file, &text)?;
        }
        let shipped = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            shipped == text,
            "dist/{} is out of date: EDGEREPL_WRITE=1 cargo xtask test manual",
            name.display()
        );
    }
    Ok(())
}

#[test]
fn nothing_else_is_there() -> Outcome {
    let made = manual()?.into_iter().chain(completions()?);
    let mut made: Vec<PathBuf> = made.map(|(name, _)| name).collect();
    let mut found = Vec::new();
    for folder in ["man", "completions"] {
        for file in fs::read_dir(dist().join(folder))? {
            found.push(Path::new(folder).join(file?.file_name()));
        }
    }
    made.sort();
    found.sort();
    assert_eq!(found, made);
    Ok(())
}

#[test]
fn bash_completes_commands_and_options() -> Outcome {
    let completed = |words: &[&str]| -> Outcome<String> {
        let last = words.last().ok_or("no words")?;
        let before = words.iter().rev().nth(1).ok_or("one word")?;
        let script = format!(
            "source {file}; COMP_WORDS=({words}); COMP_CWORD={count}; COMP_LINE='{words}'; \
             COMP_POINT=${{#COMP_LINE}}; _edgerepl edgerepl '{last}' '{before}'; echo ${{COMPREPLY[@]}}",
            file = dist().join("completions/edgerepl.bash").display(),
            words = words.join(" "),
            count = words.len() - 1,
        );
        let output = Command::new("bash").args(["-c", &script]).output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    assert_eq!(completed(&["edgerepl", "ver"])?, "verify");
    assert_eq!(completed(&["edgerepl", "restore", "--w"])?, "--wait");
    assert_eq!(
        completed(&["edgerepl", "csr", "--generate", ""])?,
        "p256 rsa2048"
    );
    Ok(())
}

/// The pages, by their place in `dist/`.
fn manual() -> Outcome<Vec<(PathBuf, String)>> {
    let mut command = edgerepl::cli::definition();
    command.build();
    let command = command.mut_subcommand("help", |help| help.hide(true));
    let mut pages = vec![page_of(&command)?];
    for part in command.get_subcommands() {
        if !part.is_hide_set() {
            pages.push(page_of(part)?);
        }
    }
    let configuration = fs::read_to_string(dist().join("edgerepl.toml"))?;
    let configuration = page_of_configuration(&configuration);
    pages.push((PathBuf::from("man/edgerepl.toml.5"), configuration));
    Ok(pages)
}

/// A command's page.
fn page_of(command: &clap::Command) -> Outcome<(PathBuf, String)> {
    // As a page is found: man edgerepl-check.
    let name = command.get_display_name().unwrap_or(command.get_name());
    let extra = command.get_after_help().map(ToString::to_string);
    let page = Man::new(command.clone())
        .source(SOURCE)
        .manual("edgerepl")
        .title(name);
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if command.has_subcommands() {
        page.render_subcommands_section(&mut text)?;
    }
    sections(&extra.unwrap_or_default()).to_writer(&mut text)?;
    see_also(name).to_writer(&mut text)?;
    let file = PathBuf::from(format!("man/{name}.1"));
    Ok((file, String::from_utf8(text)?))
}

/// What stands under the options of a help, as sections: a title and a colon, then indented lines,
/// each a term, two spaces or more, and what it means.
fn sections(help: &str) -> Roff {
    let mut page = Roff::new();
    for line in help.lines().filter(|line| !line.is_empty()) {
        match (line.strip_suffix(':'), line.trim().split_once("  ")) {
            (Some(title), _) if !line.starts_with(' ') => {
                page.control("SH", [title.to_uppercase().as_str()]);
            }
            (_, Some((term, meaning))) => {
                page.control("TP", []);
                page.text([bold(term)]);
                page.text([roman(meaning.trim())]);
            }
            _ => panic!("not a line of a section: {line:?}"),
        }
    }
    page
}

/// The page of the configuration: the shipped file, section by section.
fn page_of_configuration(file: &str) -> String {
    let mut page = Roff::new();
    page.control("TH", ["edgerepl.toml", "5", "", SOURCE, "edgerepl"]);
    page.control("SH", ["NAME"]);
    page.text([roman("edgerepl.toml - the configuration of edgerepl")]);
    page.control("SH", ["DESCRIPTION"]);
    let (mut words, mut keys) = (Vec::new(), Vec::new());
    for line in file.lines() {
        if !keys.is_empty() && !is_key(line) {
            entry(&mut page, &keys, &words);
            (words, keys) = (Vec::new(), Vec::new());
        }
        if line.starts_with('[') {
            page.control("SH", [line]);
        } else if is_key(line) {
            keys.push(line[1..].to_owned());
        } else if let Some(word) = line.strip_prefix('#') {
            words.push(word.strip_prefix(' ').unwrap_or(word).to_owned());
        } else if !words.is_empty() {
            prose(&mut page, &words);
            words = Vec::new();
        }
    }
    entry(&mut page, &keys, &words);
    page.control("SH", ["SEE ALSO"]);
    page.text([bold("edgerepl"), roman("(1)")]);
    page.render()
}

/// A key as the shipped file shows it, out of force.
fn is_key(line: &str) -> bool {
    let key = line.strip_prefix('#').unwrap_or_default();
    key.starts_with(|c: char| c.is_ascii_lowercase())
}

/// Keys that are explained together.
fn entry(page: &mut Roff, keys: &[String], words: &[String]) {
    for (number, key) in keys.iter().enumerate() {
        page.control(if number == 0 { "TP" } else { "TQ" }, []);
        page.text([bold(key)]);
    }
    page.text(marked(&words.join(" ")));
}

/// Paragraphs; lines that are indented stay as they are.
fn prose(page: &mut Roff, lines: &[String]) {
    for paragraph in lines.split(|line| line.is_empty()) {
        page.control("PP", []);
        if paragraph.iter().all(|line| line.starts_with(' ')) {
            page.control("nf", []);
            for line in paragraph {
                page.text([roman(line)]);
            }
            page.control("fi", []);
        } else {
            page.text(marked(&paragraph.join(" ")));
        }
    }
}

/// What stands between backticks is what one types.
fn marked(text: &str) -> Vec<Inline> {
    let parts = text.split('`').enumerate();
    parts
        .map(|(number, part)| {
            if number % 2 == 1 {
                bold(part)
            } else {
                roman(part)
            }
        })
        .collect()
}

fn see_also(name: &str) -> Roff {
    let mut page = Roff::new();
    page.control("SH", ["SEE ALSO"]);
    let other = if name == "edgerepl" {
        [roman(""), roman("")]
    } else {
        [bold("edgerepl"), roman("(1), ")]
    };
    page.text([&other[..], &[bold("edgerepl.toml"), roman("(5)")]].concat());
    page
}

/// The completions, by their place in `dist/`.
fn completions() -> Outcome<Vec<(PathBuf, String)>> {
    let made = |shell: &dyn Fn(&mut Vec<u8>), name: &str| -> Outcome<_> {
        let mut text = Vec::new();
        shell(&mut text);
        let file = Path::new("completions").join(name);
        Ok((file, String::from_utf8(text)?))
    };
    Ok(vec![
        made(&|text| complete(Bash, text), "edgerepl.bash")?,
        made(&|text| complete(Zsh, text), "_edgerepl")?,
        made(&|text| complete(Fish, text), "edgerepl.fish")?,
    ])
}

fn complete(shell: impl Generator, text: &mut Vec<u8>) {
    clap_complete::generate(shell, &mut edgerepl::cli::definition(), "edgerepl", text);
}

fn dist() -> PathBuf {
    tools::root().join("dist")
}

const SOURCE: &str = concat!("edgerepl ", env!("CARGO_PKG_VERSION"));
