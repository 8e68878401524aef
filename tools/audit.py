"""Print the known vulnerabilities of locked packages, for information: this never fails.

python tools/audit.py PIP_AUDIT REQUIREMENTS_FILE
"""

import json
import subprocess
import sys

SECONDS = 300


def main() -> None:
    pip_audit, requirements = sys.argv[1:3]
    command = [pip_audit, '--requirement', requirements, '--disable-pip', '--no-deps', '--format', 'json']
    try:
        done = subprocess.run([*command, '--progress-spinner', 'off'], capture_output=True, timeout=SECONDS)
        packages = json.loads(done.stdout.decode('utf-8'))['dependencies']
    except (OSError, subprocess.TimeoutExpired) as error:
        print(f'audit: nothing was checked: {error}')
        return
    except (ValueError, LookupError):
        reason = (done.stderr.decode('utf-8', 'replace').strip().splitlines() or ['no answer'])[-1]
        print(f'audit: nothing was checked: {reason}')
        return
    known = [package for package in packages if 'skip_reason' not in package]
    if not known:
        print(f'audit: nothing was checked: the vulnerability service knows none of the {len(packages)} packages')
        return
    vulnerable = [package for package in known if package['vulns']]
    for package in vulnerable:
        for fault in package['vulns']:
            fixed = ', '.join(fault['fix_versions']) or 'no version yet'
            print(f'audit: {package["name"]} {package["version"]}: {fault["id"]}, mended in {fixed}')
    print(f'audit: {len(vulnerable)} of {len(packages)} packages have known vulnerabilities, {len(known)} were checked')


if __name__ == '__main__':
    main()
