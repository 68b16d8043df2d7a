# Copyright (c) 2026, The homelab.nut contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# named, because Ansible ignores a configuration it finds by itself in a directory that others may write to
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONUNBUFFERED := 1
# TESTS=all: the long ones, too
export TESTS

LAB_PACKAGES := podman runc netavark aardvark-dns nftables iptables mmdebstrap openssh-client
ifneq ($(shell id -u),0)
LAB_PACKAGES += uidmap passt slirp4netns fuse-overlayfs dbus-user-session
endif

VM_PACKAGES := qemu-system-x86 qemu-utils mmdebstrap e2fsprogs openssh-client
ifneq ($(shell id -u),0)
VM_PACKAGES += fakeroot uidmap
endif

# two of them are asked by tools/doctor, which says what they found, and nothing else
PLAYBOOKS := $(subst _,-,$(filter-out doctor status,$(notdir $(basename $(wildcard playbooks/*.yml)))))

# A variable on the command line that its target does not have is a mistake. make passes variables on to the makes that it starts.
ifeq ($(MAKELEVEL),0)
variables = LAB TESTS HOSTILE_TIMES VM_RELEASES VENV $(if $(filter $(PLAYBOOKS),$(1)),inventory limit tags check args) \
    $(if $(filter doctor,$(1)),inventory limit json all args) $(if $(filter status,$(1)),inventory limit json args) $(if $(filter lab,$(1)),sites)
known := $(foreach goal,$(or $(MAKECMDGOALS),help),$(call variables,$(goal)))
given := $(foreach name,$(.VARIABLES),$(if $(findstring command line,$(origin $(name))),$(name)))
unknown := $(filter-out $(known),$(given))
ifneq ($(unknown),)
$(error $(shell tools/unknown-variable 'make $(MAKECMDGOALS)' '$(firstword $(unknown))' $(known)))
endif
endif

# what runs on an inventory that is not there, and on a lab that is not up
with_inventory = case '$(inventory)' in *,*) ;; *) [ -e '$(inventory)' ] || { echo "inventory=$(inventory): there is no such file or folder" >&2; exit 2; } ;; esac
with_lab = $(if $(is_lab),$(MAKE) --no-print-directory --silent lab-ready >&2)

.PHONY: help $(PLAYBOOKS) doctor status demo lab lab-ready lab-down test lint sanity units units-all oracle molecule test-vm test-all docs build lock

help: ## this list
	@echo 'make TARGET [VARIABLE=VALUE ...]'
	@echo
	@echo 'Targets:'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  %-10s %s\n", $$1, $$2}'
	@for playbook in $(PLAYBOOKS); do printf '  %-10s %s\n' $$playbook "$$(sed -n '2s/^# *//p' playbooks/$${playbook//-/_}.yml)"; done
	@echo
	@echo 'Variables of a playbook (any playbooks/X.yml runs as make X):'
	@echo '  tags=ups           only what has this tag'
	@echo '  limit=HOST,...     only these hosts'
	@echo '  inventory=PATH     this inventory (else inventories/homelab if you made one, else the built-in lab)'
	@echo '  check=1            change nothing, show what would change'
	@echo '  json=1             doctor, status: for machines'
	@echo '  all=1              doctor: also what is well'
	@echo "  args='...'         anything else for ansible-playbook, such as args=-vvv"

# Playbooks

inventory ?= $(if $(wildcard inventories/homelab),inventories/homelab,inventories/lab)

# a path with a blank is none of the lab's, and make would see two
is_lab = $(if $(filter 1,$(words $(inventory))),$(filter $(abspath inventories/lab inventories/lab/hosts.py),$(abspath $(inventory))))

$(PLAYBOOKS): %: $(VENV)/run
	@$(with_inventory)
	@echo "inventory: $(inventory)$(if $(is_lab), (the built-in lab; make inventories/homelab from inventories/example for your own hosts))" >&2
	@$(with_lab)
	@ansible-playbook playbooks/$(subst -,_,$*).yml --inventory '$(inventory)' $(if $(tags),--tags '$(tags)') $(if $(limit),--limit '$(limit)') $(if $(filter-out 0 no false,$(check)),--check --diff) $(args)

doctor: $(VENV)/run ## is all well? each check on all hosts at once, as a table
	@$(with_inventory)
	@$(with_lab)
	@tools/doctor doctor $(if $(filter-out 0 no false,$(json)),--json) $(if $(filter-out 0 no false,$(all)),--all) --inventory '$(inventory)' $(if $(limit),--limit '$(limit)') $(args)

status: $(VENV)/run ## each UPS, who is logged in, and what happened last, on one screen
	@$(with_inventory)
	@$(with_lab)
	@tools/doctor status $(if $(filter-out 0 no false,$(json)),--json) --inventory '$(inventory)' $(if $(limit),--limit '$(limit)') $(args)

# The lab

demo: $(VENV)/run ## a power cut in the built-in lab, from deployment to the last host going down
	@tools/packages $(LAB_PACKAGES)
	@tools/demo

lab: ## start the lab, or what is missing of it (sites='pve8 pve9 rack')
	@tools/packages $(LAB_PACKAGES)
	@lab/lab up $(sites)
	@lab/lab status

# what a playbook asks for: no output where all runs
lab-ready:
	@lab/lab runs || $(MAKE) --no-print-directory lab

lab-down: ## remove the lab
	@lab/lab down

# Tests

test: lint ## lint, sanity, units-all, oracle and molecule: all that CI runs; test-vm is besides
	@echo 'units, oracle and sanity beside each other: what each says comes when it has ended'
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target sanity oracle units-all
	@$(MAKE) --no-print-directory molecule

lint: $(VENV)/dev ## ansible-lint, yamllint, ruff, mypy, and the changelog's form
	yamllint --strict .
	ruff check
	ruff format --check
	mypy plugins lab
	ansible-lint
	antsibull-changelog lint

sanity: $(VENV)/dev ## ansible-test sanity, all of its tests
	tools/sanity

units: $(VENV)/dev ## pytest on tests/unit, without what is marked slow: minutes, for after each change
	pytest -n 3 --dist worksteal -m 'not slow'

units-all: $(VENV)/dev ## pytest on tests/unit, all of it
	pytest -n 3 --dist worksteal

oracle: $(VENV)/dev ## pytest on tests/oracle: the library against the NUT of Debian 12 and 13, in containers
	@tools/packages $(LAB_PACKAGES)
	pytest tests/oracle

molecule: $(VENV)/dev ## the scenarios of molecule: the roles on all sites of the lab, faults, a take-over, drills, power cuts, the doctor
	@tools/packages $(LAB_PACKAGES)
	tools/molecule

test-all: ## all of test, with each long test and each power cut of lab/lab cases, and test-vm: before a release (hours)
	@$(MAKE) --no-print-directory test TESTS=all
	@$(MAKE) --no-print-directory test-vm

test-vm: $(VENV)/dev ## molecule's scenario vm: USB hotplug on a virtual machine with a real kernel, udev and power loss (half an hour)
	@tools/packages $(LAB_PACKAGES) $(VM_PACKAGES)
	molecule test --scenario-name vm

docs: ## docs/directives.md, from the tables of NUT's directives
	@python3 tools/directives.py

build: $(VENV)/run ## the collection as a file for ansible-galaxy
	ansible-galaxy collection build --force

# The virtual environment: run is what a playbook needs, dev is that and the tests' tools.

$(VENV)/run: requirements.txt tools/venv
	@tools/venv $(VENV) requirements.txt
	@touch $@

$(VENV)/dev: requirements-dev.txt $(VENV)/run
	@tools/venv $(VENV) requirements-dev.txt
	@touch $@

lock: $(VENV)/dev ## renew requirements*.txt, the exact versions and the hashes of their files, from requirements*.in
	@for name in requirements requirements-dev; do uv pip compile --quiet --no-config --universal --upgrade --generate-hashes --python-version 3.11 --no-header --no-annotate --no-emit-index-url --no-emit-find-links $$name.in --output-file $$name.txt; done
