# A login shell, which some versions of KubeRay start Ray in, sets PATH anew.
PATH=/opt/framelane/bin:$PATH
