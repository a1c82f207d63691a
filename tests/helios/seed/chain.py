from langchain.agents import AgentExecutor
import subprocess

def langchain_with_version_control(agent: AgentExecutor, task: str):
    # 智能体执行前创建检查点
    subprocess.run(["helios", "commit", "--work", "."])
    checkpoint = subprocess.check_output(["helios", "rev-parse", "HEAD"]).decode().strip()
    
    try:
        result = agent.run(task)
        # 智能体修改了文件，提交更改
        subprocess.run(["helios", "add", "."])
        subprocess.run(["helios", "commit", "--work", "."])
        return result
    except Exception as e:
        # 智能体失败时回滚
        subprocess.run(["helios", "checkout", checkpoint])
        raise e
