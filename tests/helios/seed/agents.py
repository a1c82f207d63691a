# 多个AI智能体同时处理同一问题
import concurrent.futures
import subprocess
import threading

def run_ai_agent_experiment(agent_id, problem_description, base_branch):
    """每个智能体在单独的分支上工作"""
    branch_name = f"agent-{agent_id}-experiment"
    
    # 为此智能体创建隔离分支
    subprocess.run(["helios", "branch", branch_name, base_branch])
    subprocess.run(["helios", "checkout", branch_name])
    
    # 智能体生成和测试解决方案
    best_score = 0
    iterations = 0
    
    while iterations < 100 and best_score < target_score:
        # 用AI生成代码
        code = your_ai_model.generate(
            prompt=problem_description,
            agent_id=agent_id,
            iteration=iterations
        )
        
        # 提交此尝试
        with open(f"solution_{agent_id}.py", "w") as f:
            f.write(code)
        subprocess.run(["helios", "commit", "--work", "."])
        
        # 测试性能
        score = run_tests()
        if score > best_score:
            best_score = score
        else:
            # 恢复到之前最佳状态
            subprocess.run(["helios", "reset", "--hard", "HEAD~1"])
            
        iterations += 1
    
    return agent_id, best_score, subprocess.check_output(
        ["helios", "rev-parse", "HEAD"]
    ).decode().strip()

# 并行运行5个智能体
with concurrent.futures.ThreadPoolExecutor(max_workers=5) as executor:
    futures = [
        executor.submit(run_ai_agent_experiment, i, "优化数据库查询", "main")
        for i in range(5)
    ]
    
    # 获取所有智能体的结果
    results = [f.result() for f in futures]
    
    # 找出获胜者
    winner = max(results, key=lambda x: x[1])  # 最佳分数
    print(f"智能体 {winner[0]} 以分数 {winner[1]} 获胜")
    
    # 合并获胜解决方案
    subprocess.run(["helios", "checkout", "main"])
    subprocess.run(["helios", "merge", winner[2]])
