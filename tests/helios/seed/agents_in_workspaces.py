# Several agents at one problem, each in a workspace of its own: what one writes, commits or takes back touches no other.
import concurrent.futures
import pathlib
import subprocess


def helios(*arguments, cwd="."):
    return subprocess.run(["helios", *arguments], cwd=cwd, check=True, capture_output=True, text=True).stdout.strip()


def run_ai_agent_experiment(agent_id, problem_description, base_branch):
    workspace = pathlib.Path("..") / f"agent-{agent_id}"
    helios("workspace", "add", str(workspace), base_branch, "--branch", f"agent-{agent_id}-experiment")

    best_score, best = 0, helios("rev-parse", "HEAD", cwd=workspace)
    for iteration in range(100):
        code = your_ai_model.generate(prompt=problem_description, agent_id=agent_id, iteration=iteration)
        (workspace / f"solution_{agent_id}.py").write_text(code)
        helios("commit", "--work", ".", cwd=workspace)

        score = run_tests()
        if score > best_score:
            best_score, best = score, helios("rev-parse", "HEAD", cwd=workspace)
        else:
            helios("reset", "--hard", best, cwd=workspace)
        if best_score >= target_score:
            break
    return agent_id, best_score, best


with concurrent.futures.ThreadPoolExecutor(max_workers=5) as executor:
    futures = [executor.submit(run_ai_agent_experiment, i, "优化数据库查询", "main") for i in range(5)]
    results = [future.result() for future in futures]

winner = max(results, key=lambda result: result[1])
print(f"智能体 {winner[0]} 以分数 {winner[1]} 获胜")
helios("merge", winner[2])
