maven_jars jars.txt perftest || return
program PerfTest 2.22.1 scenarios env CLASSPATH="$classpath" ./scenarios
